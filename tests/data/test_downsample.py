"""Windows of voxels: closed forms, then NumPy's own mean and counts."""

import itertools
from typing import Any

import numpy as np
import pytest

from emsuite.data.downsample import downsample, factors, kind_for

DRAWN = np.array([[7, 7, 9, 9, 3], [7, 9, 9, 9, 3], [0, 0, 5, 5, 4], [0, 5, 0, 5, 8]], np.uint8)


def windows(voxels: np.ndarray, window: tuple[int, ...]) -> Any:
    """Yield the index of each coarse voxel and the voxels of its window, in NumPy alone."""
    dims = len(window)
    steps = [range(0, n, f) for n, f in zip(voxels.shape[-dims:], window, strict=True)]
    for channel in np.ndindex(voxels.shape[:-dims]):
        for corner in itertools.product(*steps):
            part = tuple(slice(c, c + f) for c, f in zip(corner, window, strict=True))
            yield (*channel, *(c // f for c, f in zip(corner, window, strict=True))), voxels[(*channel, *part)]


def test_the_windows_that_the_module_draws() -> None:
    np.testing.assert_array_equal(downsample(DRAWN, (2, 2), "mode"), [[7, 9, 3], [0, 5, 4]])
    np.testing.assert_array_equal(downsample(DRAWN, (2, 2), "mean"), [[8, 9, 3], [1, 4, 6]])


@pytest.mark.parametrize("values", [([0, 0, 5, 5], 0), ([5, 5, 0, 0], 0), ([1, 2, 3, 4], 1), ([4, 9, 9, 1], 9)])
def test_the_most_frequent_value_or_the_smallest_of_several(values: tuple[list[int], int]) -> None:
    assert downsample(np.array(values[0], np.uint64).reshape(1, 2, 2), (1, 2, 2), "mode").item() == values[1]


@pytest.mark.parametrize("dtype", ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", ">u2", ">f4"])
@pytest.mark.parametrize("window", [(2, 2, 2), (1, 2, 2), (1, 1, 1), (2, 1, 2)])
def test_every_type_and_cut_windows_equal_numpy(dtype: str, window: tuple[int, ...]) -> None:
    generator = np.random.default_rng(len(dtype) + sum(window))
    voxels = generator.integers(0, 4, (2, 5, 4, 3)).astype(dtype)
    if np.dtype(dtype).kind == "i":
        voxels -= 2
    mode, mean = downsample(voxels, window, "mode"), downsample(voxels, window, "mean")
    assert mode.dtype == mean.dtype == voxels.dtype
    for at, part in windows(voxels, window):
        values, times = np.unique(part, return_counts=True)
        assert mode[at] == values[times.argmax()]
        exact = part.astype(np.float64).mean()
        expected = exact if np.dtype(dtype).kind == "f" else np.floor(exact + 0.5)
        assert mean[at] == np.array(expected).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint32, np.uint64, np.int64])
def test_the_mean_of_the_largest_and_the_smallest_integers(dtype: Any) -> None:
    least, most = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    for pair in ((most, most), (least, least), (most - 1, most), (least, least + 2), (least, most)):
        voxels = np.array(pair * 4, dtype).reshape(2, 2, 2)
        assert int(downsample(voxels, (2, 2, 2), "mean").item()) == (sum(pair) + 1) // 2


def test_nan_stays_where_it_was() -> None:
    voxels = np.ones((2, 2, 4), np.float32)
    voxels[0, 0, 0] = np.nan
    np.testing.assert_array_equal(downsample(voxels, (2, 2, 2), "mean"), [[[np.nan, 1]]])


@pytest.mark.parametrize(
    ("size", "shape", "expected"),
    [
        ((8, 8, 8), (9, 9, 9), (2, 2, 2)),
        ((40, 4, 4), (9, 9, 9), (1, 2, 2)),
        ((40, 16, 16), (9, 9, 9), (1, 2, 2)),
        ((40, 32, 32), (9, 9, 9), (2, 2, 2)),
        ((50, 4.6, 4.6), (9, 9, 9), (1, 2, 2)),
        ((8, 8, 8), (1, 9, 9), (1, 2, 2)),
        ((40, 4, 4), (9, 1, 1), (2, 1, 1)),
        ((8, 8, 8), (1, 1, 1), (1, 1, 1)),
        ((4, 4), (9, 9), (2, 2)),
    ],
)
def test_windows_grow_voxels_towards_cubes(size: Any, shape: Any, expected: tuple[int, ...]) -> None:
    assert factors(size, shape) == expected


def test_the_kind_that_a_type_tells() -> None:
    modes = [
        name for name in ("?", "u1", "u2", "i2", "u4", "i4", "u8", "i8", "f4") if kind_for(np.dtype(name)) == "mode"
    ]
    assert modes == ["?", "u4", "i4", "u8", "i8"]
