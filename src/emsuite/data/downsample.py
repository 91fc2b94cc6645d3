"""Coarser arrays: each voxel is the mean, or the most frequent value, of a window of finer voxels.

    7 7 9 9 3        windows of 2 x 2; at the end of an axis, a window is cut
    7 9 9 9 3
    0 0 5 5 4        mode  7 9 3        mean  8 9 3
    0 5 0 5 8              0 5 4              1 4 6

Windows are twice as long as a voxel along the axes whose voxels are short, so that voxels grow towards cubes.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numba
import numpy as np

Kind = Literal["mean", "mode"]


def factors(voxel_size: Sequence[Any], shape: Sequence[int]) -> tuple[int, ...]:
    """Return the voxels of a window along each axis of space: 2 or 1.

    Args:
        voxel_size: nm, z y x.
        shape: Voxels, z y x. An axis of one voxel stays as it is.

    Returns:
        2 along axes whose voxels are less than twice as long as the shortest: afterwards all lengths lie closer. All 1
        for a single voxel.
    """
    shortest = min((size for size, n in zip(voxel_size, shape, strict=True) if n > 1), default=0)
    return tuple(2 if n > 1 and size < 2 * shortest else 1 for size, n in zip(voxel_size, shape, strict=True))


def kind_for(dtype: np.dtype) -> Kind:
    """Return `mode` for the types of labels, bool and integers of 32 and 64 bits, `mean` for all others."""
    return "mode" if dtype.kind == "b" or (dtype.kind in "iu" and dtype.itemsize >= 4) else "mean"


def downsample(voxels: np.ndarray, window: Sequence[int], kind: Kind) -> np.ndarray:
    """Return one voxel for each window.

    Args:
        voxels: (..., Z, Y, X) or (..., Y, X), any number.
        window: Voxels along each axis of space; windows at the end may be cut.
        kind: `mean`, of integers rounded to the nearest, halves up; or `mode`, the most frequent value, the smallest of
            several; 0 is a value as any other.

    Returns:
        An array of the same type and number of axes; lengths are divided and rounded up.
    """
    dims = len(window)
    shape = voxels.shape[-dims:]
    coarse = (*voxels.shape[:-dims], *(-(-n // f) for n, f in zip(shape, window, strict=True)))
    working = _working_type(voxels.dtype, kind)
    flat = np.ascontiguousarray(voxels).astype(working, copy=False).reshape(-1, *[1] * (3 - dims), *shape)
    result = np.empty((flat.shape[0], *[1] * (3 - dims), *coarse[-dims:]), working)
    z, y, x = (*[1] * (3 - dims), *window)
    if kind == "mode":
        _mode(flat, result, z, y, x)
    else:
        (_mean_of_floats if working.kind == "f" else _mean_of_integers)(flat, result, z, y, x)
    return result.reshape(coarse).astype(voxels.dtype, copy=False)


def _working_type(dtype: np.dtype, kind: Kind) -> np.dtype:
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype == np.float16 or dtype.itemsize > 8:  # what numba does not know
        return np.dtype(np.float32 if dtype.itemsize < 8 else np.float64)
    return dtype.newbyteorder("=")


@numba.njit(cache=True, nogil=True)
def _mode(voxels: np.ndarray, result: np.ndarray, z: int, y: int, x: int) -> None:
    window = np.empty(z * y * x, voxels.dtype)
    for c, k, j, i in np.ndindex(result.shape):
        part = voxels[c, k * z : (k + 1) * z, j * y : (j + 1) * y, i * x : (i + 1) * x]
        n, uniform, first = 0, True, part[0, 0, 0]
        for a in range(part.shape[0]):
            for b in range(part.shape[1]):
                for d in range(part.shape[2]):
                    window[n] = part[a, b, d]
                    uniform = uniform and window[n] == first
                    n += 1
        result[c, k, j, i] = first if uniform else _most_frequent(window[:n])


@numba.njit(cache=True, nogil=True)
def _most_frequent(values: np.ndarray) -> Any:
    best, most = values[0], 0
    for value in values:
        times = 0
        for other in values:
            times += other == value
        if times > most or (times == most and value < best):
            best, most = value, times
    return best


@numba.njit(cache=True, nogil=True)
def _mean_of_floats(voxels: np.ndarray, result: np.ndarray, z: int, y: int, x: int) -> None:
    for c, k, j, i in np.ndindex(result.shape):
        total, n = 0.0, 0
        for a in range(k * z, min((k + 1) * z, voxels.shape[1])):
            for b in range(j * y, min((j + 1) * y, voxels.shape[2])):
                for d in range(i * x, min((i + 1) * x, voxels.shape[3])):
                    total += voxels[c, a, b, d]
                    n += 1
        result[c, k, j, i] = total / n


@numba.njit(cache=True, nogil=True)
def _mean_of_integers(voxels: np.ndarray, result: np.ndarray, z: int, y: int, x: int) -> None:
    for c, k, j, i in np.ndindex(result.shape):
        part = voxels[c, k * z : (k + 1) * z, j * y : (j + 1) * y, i * x : (i + 1) * x]
        # the least value apart, so that the sum of what is above it fits 64 bits
        least = part[0, 0, 0]
        for value in part.flat:
            least = min(least, value)
        above = np.uint64(0)
        n = np.uint64(part.size)
        rest = np.uint64(0)
        for value in part.flat:
            over = np.uint64(value) - np.uint64(least)
            above += over // n
            rest += over % n
        result[c, k, j, i] = np.uint64(least) + above + (rest + n // np.uint64(2)) // n
