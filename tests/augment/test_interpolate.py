"""Interpolation against SciPy, compiled and in torch."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from emsuite.augment.interpolate import linear, linear_torch, nearest, nearest_torch
from emsuite.augment.sampling_grid import SamplingGrid

SHAPE = (9, 11, 13)


def grid_of(coordinates: torch.Tensor) -> SamplingGrid:
    """Coordinates (3, N) as those of a box of one column along z."""
    still = torch.zeros(3, 1)
    return SamplingGrid(
        (coordinates, still, still), torch.zeros(coordinates.shape[1], 3, 1, 1), torch.zeros(1, 1), torch.zeros(1, 1)
    )


@pytest.fixture
def coordinates() -> torch.Tensor:
    """Coordinates inside, at the border and outside of the volume, some of them on voxels."""
    random = np.random.default_rng(0)
    scattered = random.uniform(-3, np.array(SHAPE) + 2, (4000, 3)).T
    on_voxels = random.integers(-2, np.array(SHAPE) + 2, (500, 3)).T
    in_sections = np.concatenate([random.integers(0, SHAPE[0], (1, 500)), scattered[1:, :500]])
    return torch.from_numpy(np.concatenate([scattered, on_voxels, in_sections], axis=1).astype(np.float32))


@pytest.mark.parametrize("function", [linear, linear_torch])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_linear_is_scipys(function, dtype, coordinates):
    source = torch.from_numpy(np.random.default_rng(1).integers(0, 256, SHAPE)).to(dtype)
    values = torch.empty(coordinates.shape[1], 1, 1)
    function(source, grid_of(coordinates), values)
    expected = map_coordinates(source.double().numpy(), coordinates.numpy(), order=1, mode="grid-constant", cval=0)
    np.testing.assert_allclose(values.flatten().numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("function", [linear, linear_torch])
def test_linear_on_and_between_voxels(function):
    source = torch.tensor([[[0, 100], [50, 250]]], dtype=torch.uint8)
    coordinates = torch.tensor([[0, 0, 0], [0, 1, 1], [0, 0.5, 0.5], [0, 0, 1.5], [-0.5, 0, 1]]).T.contiguous()
    values = torch.empty(5, 1, 1)
    function(source, grid_of(coordinates), values)
    assert values.flatten().tolist() == [0, 250, 100, 50, 50]


@pytest.mark.parametrize("function", [nearest, nearest_torch])
def test_nearest_is_scipys_and_keeps_large_ids(function, coordinates):
    source = torch.from_numpy(np.random.default_rng(2).integers(2**30, 2**31 - 1, SHAPE).astype(np.int32))
    values = torch.empty((coordinates.shape[1], 1, 1), dtype=torch.int32)
    function([source], grid_of(coordinates), [values])
    expected = map_coordinates(source.double().numpy(), coordinates.numpy(), order=0, mode="grid-constant", cval=0)
    np.testing.assert_array_equal(values.flatten().numpy(), expected)


@pytest.mark.parametrize("function", [nearest, nearest_torch])
@pytest.mark.parametrize("first", [False, True])
def test_one_value_seen_as_many_is_read_as_many(function, first, coordinates):
    one, labels = torch.tensor(7, dtype=torch.uint8).expand(SHAPE), torch.ones(SHAPE, dtype=torch.int32)
    values = [torch.empty((coordinates.shape[1], 1, 1), dtype=dtype) for dtype in (torch.uint8, torch.int32)]
    order = slice(None) if first else slice(None, None, -1)
    function([one, labels][order], grid_of(coordinates), values[order])
    assert torch.equal(values[0], 7 * values[1].byte())
    assert 0 < values[1].sum() < coordinates.shape[1]


@pytest.mark.parametrize("function", [nearest, nearest_torch])
def test_half_way_the_higher_voxel_is_nearest(function):
    source = torch.tensor([[[1, 2, 3]]], dtype=torch.int32)
    values = torch.empty((4, 1, 1), dtype=torch.int32)
    function([source], grid_of(torch.tensor([[0.0] * 4, [0.0] * 4, [-0.6, -0.5, 0.5, 2.5]])), [values])
    assert values.flatten().tolist() == [0, 1, 2, 0]
