"""Interpolation against SciPy, compiled and in torch."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from emsuite.augment.interpolate import linear, linear_torch, nearest, nearest_torch
from emsuite.augment.sampling_grid import SamplingGrid

SHAPE = (9, 11, 13)


def scattered(places: torch.Tensor) -> SamplingGrid:
    """Places (3, N) as those of a box of one column along z."""
    still = torch.zeros(3, 1)
    return SamplingGrid(
        (places, still, still), torch.zeros(places.shape[1], 3, 1, 1), torch.zeros(1, 1), torch.zeros(1, 1)
    )


@pytest.fixture
def places() -> torch.Tensor:
    """Places inside, at the border and outside of the volume, some of them on voxels."""
    random = np.random.default_rng(0)
    scattered = random.uniform(-3, np.array(SHAPE) + 2, (4000, 3)).T
    on_voxels = random.integers(-2, np.array(SHAPE) + 2, (500, 3)).T
    in_sections = np.concatenate([random.integers(0, SHAPE[0], (1, 500)), scattered[1:, :500]])
    return torch.from_numpy(np.concatenate([scattered, on_voxels, in_sections], axis=1).astype(np.float32))


@pytest.mark.parametrize("function", [linear, linear_torch])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_linear_is_scipys(function, dtype, places):
    source = torch.from_numpy(np.random.default_rng(1).integers(0, 256, SHAPE)).to(dtype)
    found = torch.empty(places.shape[1], 1, 1)
    function(source, scattered(places), found)
    expected = map_coordinates(source.double().numpy(), places.numpy(), order=1, mode="grid-constant", cval=0)
    np.testing.assert_allclose(found.flatten().numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("function", [linear, linear_torch])
def test_linear_on_and_between_voxels(function):
    source = torch.tensor([[[0, 100], [50, 250]]], dtype=torch.uint8)
    places = torch.tensor([[0, 0, 0], [0, 1, 1], [0, 0.5, 0.5], [0, 0, 1.5], [-0.5, 0, 1]]).T.contiguous()
    found = torch.empty(5, 1, 1)
    function(source, scattered(places), found)
    assert found.flatten().tolist() == [0, 250, 100, 50, 50]


@pytest.mark.parametrize("function", [nearest, nearest_torch])
def test_nearest_is_scipys_and_keeps_large_ids(function, places):
    source = torch.from_numpy(np.random.default_rng(2).integers(2**30, 2**31 - 1, SHAPE).astype(np.int32))
    found = torch.empty((places.shape[1], 1, 1), dtype=torch.int32)
    function([source], scattered(places), [found])
    expected = map_coordinates(source.double().numpy(), places.numpy(), order=0, mode="grid-constant", cval=0)
    np.testing.assert_array_equal(found.flatten().numpy(), expected)


@pytest.mark.parametrize("function", [nearest, nearest_torch])
@pytest.mark.parametrize("first", [False, True])
def test_one_value_seen_as_many_is_read_as_many(function, first, places):
    one, labels = torch.tensor(7, dtype=torch.uint8).expand(SHAPE), torch.ones(SHAPE, dtype=torch.int32)
    found = [torch.empty((places.shape[1], 1, 1), dtype=dtype) for dtype in (torch.uint8, torch.int32)]
    order = slice(None) if first else slice(None, None, -1)
    function([one, labels][order], scattered(places), found[order])
    assert torch.equal(found[0], 7 * found[1].byte())
    assert 0 < found[1].sum() < places.shape[1]


@pytest.mark.parametrize("function", [nearest, nearest_torch])
def test_half_way_the_higher_voxel_is_nearest(function):
    source = torch.tensor([[[1, 2, 3]]], dtype=torch.int32)
    found = torch.empty((4, 1, 1), dtype=torch.int32)
    function([source], scattered(torch.tensor([[0.0] * 4, [0.0] * 4, [-0.6, -0.5, 0.5, 2.5]])), [found])
    assert found.flatten().tolist() == [0, 1, 2, 0]
