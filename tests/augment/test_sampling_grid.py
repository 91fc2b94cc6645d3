"""Sampling grids: their coordinates by the definition, and read by section as read at once."""

import numpy as np
import torch

from emsuite.augment.interpolate import linear, linear_torch, nearest, nearest_torch
from emsuite.augment.sampling_grid import SamplingGrid, make_sampling_grid

BOX = (4, 5, 6)


def random_grid(points: tuple[int, int, int]) -> tuple[SamplingGrid, np.ndarray]:
    """A grid around the middle of 20 x 20 x 20 voxels; and the same by the sum, written out."""
    random = np.random.default_rng(0)
    axes = [random.uniform(0, 6, (3, size)) for size in BOX]
    vectors = random.normal(size=(3, *points)).astype(np.float32)
    vectors[0] = 0  # z lies straight
    weights = [random.uniform(size=(size, count)) for size, count in zip(BOX, points, strict=True)]
    moved = np.einsum("cijk,zi,yj,xk->czyx", vectors, *weights)
    z, y, x = axes
    expected = z[:, :, None, None] + y[:, None, :, None] + x[:, None, None, :] + moved
    return make_sampling_grid(axes, vectors, weights, torch.device("cpu")), expected


def test_coordinates_are_the_sum_of_axes_and_displacement():
    grid, expected = random_grid((2, 3, 4))
    assert grid.section_vectors.shape == (4, 3, 3, 4)
    np.testing.assert_allclose(grid.dense().numpy(), expected, atol=1e-5)


def test_coordinates_with_one_displacement_for_all_voxels():
    grid, expected = random_grid((1, 1, 1))
    np.testing.assert_allclose(grid.dense().numpy(), expected, atol=1e-5)


def test_reading_by_section_equals_reading_all_coordinates_at_once():
    source = torch.randint(0, 256, (20, 20, 20), dtype=torch.int32)
    for points in ((2, 3, 4), (1, 1, 1)):
        grid, _ = random_grid(points)
        by_section, at_once = torch.empty(BOX), torch.empty(BOX)
        linear(source, grid, by_section)
        linear_torch(source, grid, at_once)
        torch.testing.assert_close(by_section, at_once, atol=2e-3, rtol=0)
        labels, expected = torch.empty(BOX, dtype=torch.int32), torch.empty(BOX, dtype=torch.int32)
        nearest([source], grid, [labels])
        nearest_torch([source], grid, [expected])
        assert torch.equal(labels, expected)
