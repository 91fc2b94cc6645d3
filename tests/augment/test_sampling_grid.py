"""Places as their definition says, and read in rows as read at once."""

import numpy as np
import torch

from emsuite.augment.interpolate import linear, linear_torch, nearest, nearest_torch
from emsuite.augment.sampling_grid import SamplingGrid, sampling_grid

BOX = (4, 5, 6)


def random_places(points: tuple[int, int, int]) -> tuple[SamplingGrid, np.ndarray]:
    """Places around the middle of 20 x 20 x 20 voxels; and the same by the sum, written out."""
    random = np.random.default_rng(0)
    axes = [random.uniform(0, 6, (3, size)) for size in BOX]
    vectors = random.normal(size=(3, *points)).astype(np.float32)
    vectors[0] = 0  # z lies straight
    weights = [random.uniform(size=(size, count)) for size, count in zip(BOX, points, strict=True)]
    moved = np.einsum("cijk,zi,yj,xk->czyx", vectors, *weights)
    z, y, x = axes
    expected = z[:, :, None, None] + y[:, None, :, None] + x[:, None, None, :] + moved
    return sampling_grid(axes, vectors, weights, torch.device("cpu")), expected


def test_places_are_the_sum_of_axes_and_displacement():
    places, expected = random_places((2, 3, 4))
    assert places.planes.shape == (4, 3, 3, 4)
    np.testing.assert_allclose(places.dense().numpy(), expected, atol=1e-5)


def test_places_with_a_displacement_of_all_alike():
    places, expected = random_places((1, 1, 1))
    np.testing.assert_allclose(places.dense().numpy(), expected, atol=1e-5)


def test_rows_read_what_all_places_at_once_read():
    source = torch.randint(0, 256, (20, 20, 20), dtype=torch.int32)
    for points in ((2, 3, 4), (1, 1, 1)):
        places, _ = random_places(points)
        by_row, at_once = torch.empty(BOX), torch.empty(BOX)
        linear(source, places, by_row)
        linear_torch(source, places, at_once)
        torch.testing.assert_close(by_row, at_once, atol=2e-3, rtol=0)
        labels, expected = torch.empty(BOX, dtype=torch.int32), torch.empty(BOX, dtype=torch.int32)
        nearest([source], places, [labels])
        nearest_torch([source], places, [expected])
        assert torch.equal(labels, expected)
