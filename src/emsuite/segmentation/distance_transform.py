"""Squared distances to the boundary and their local maxima, which are the seeds of fragments.

Both functions process one axis after the other, whole rows of voxels at once, so that the compiler can vectorise them.
For a block of 160 voxels a side this is four times as fast as edt, with the same result.
"""

import numba
import numpy as np

_FAR = 32768  # voxels; larger distances count as this one, so that its square fits into int32


def squared_distance(inside: np.ndarray) -> np.ndarray:
    """Return the squared Euclidean distance from each voxel inside to the nearest voxel outside, in voxels.

    Args:
        inside: (Z, Y, X) bool. The faces of the volume are no boundary.

    Returns:
        (Z, Y, X) int32: 0 outside, and 2**30 everywhere if no voxel is outside.

    Source: Felzenszwalb and Huttenlocher, "Distance transforms of sampled functions", 2012: one axis after the other.
    """
    squared = np.empty(inside.shape, np.int32)
    if squared.size:
        _distance_along_x(inside, squared)
        _distance_along_y(squared)
        _distance_along_z(squared)
    return squared


def local_maxima(values: np.ndarray, width: tuple[int, int, int]) -> np.ndarray:
    """Return where a voxel is as large as every voxel in the window around it.

    The result equals `scipy.ndimage.maximum_filter(values, width) == values`: a window of even width reaches one voxel
    less far forward than back.

    Args:
        values: (Z, Y, X) int32, none below 0.
        width: The window in voxels per axis.

    Returns:
        (Z, Y, X) bool.
    """
    largest = values.copy()
    if values.size:
        _largest_along_x(largest, width[2])
        _largest_along_y(largest, width[1])
        _largest_along_z(largest, width[0])
    return largest == values


@numba.njit(cache=True, nogil=True)
def _distance_along_x(inside: np.ndarray, squared: np.ndarray) -> None:
    for z in range(inside.shape[0]):
        for y in range(inside.shape[1]):
            steps = np.int32(_FAR)
            for x in range(inside.shape[2]):
                steps = np.int32(steps + 1) if inside[z, y, x] else np.int32(0)
                squared[z, y, x] = steps
            steps = np.int32(_FAR)
            for x in range(inside.shape[2] - 1, -1, -1):
                steps = min(np.int32(steps + 1), squared[z, y, x])
                near = min(steps, np.int32(_FAR))
                squared[z, y, x] = near * near


@numba.njit(cache=True, nogil=True)
def _distance_along_y(squared: np.ndarray) -> None:
    before = np.empty(squared.shape[1:], np.int32)
    for z in range(squared.shape[0]):
        before[:] = squared[z]
        _lower_envelope(before, squared[z])


@numba.njit(cache=True, nogil=True)
def _distance_along_z(squared: np.ndarray) -> None:
    # copied, because rows that are adjacent in memory are read far faster than rows that are a plane apart
    before = np.empty((squared.shape[0], squared.shape[2]), np.int32)
    after = np.empty_like(before)
    for y in range(squared.shape[1]):
        for z in range(squared.shape[0]):
            before[z] = squared[z, y]
        after[:] = before
        _lower_envelope(before, after)
        for z in range(squared.shape[0]):
            squared[z, y] = after[z]


@numba.njit(cache=True, nogil=True)
def _lower_envelope(before: np.ndarray, after: np.ndarray) -> None:
    """Set after[i] to the smallest before[j] + (i - j)^2 over all rows j; `after` begins as a copy of `before`."""
    rows, width = before.shape
    for i in range(rows):
        row, farthest = after[i], np.int32(0)
        for x in range(width):
            farthest = max(farthest, row[x])
        k = 1
        while k * k < farthest and (k <= i or i + k < rows):
            # beyond an end, use the row on the other side twice: it does not change the minimum
            low = before[i - k if k <= i else i + k]
            high = before[i + k if i + k < rows else i - k]
            squared = np.int32(k * k)
            for x in range(width):
                row[x] = min(row[x], min(low[x], high[x]) + squared)
            if k % 2 == 0:
                farthest = np.int32(0)
                for x in range(width):
                    farthest = max(farthest, row[x])
            k += 1


@numba.njit(cache=True, nogil=True)
def _largest_along_x(values: np.ndarray, width: int) -> None:
    lines = np.zeros((values.shape[2] + width - 1, values.shape[1]), np.int32)
    for z in range(values.shape[0]):
        _copy_padded(lines, values[z].T, width)
        _windowed_maximum(lines, width)
        values[z] = lines[: values.shape[2]].T


@numba.njit(cache=True, nogil=True)
def _largest_along_y(values: np.ndarray, width: int) -> None:
    lines = np.zeros((values.shape[1] + width - 1, values.shape[2]), np.int32)
    for z in range(values.shape[0]):
        _copy_padded(lines, values[z], width)
        _windowed_maximum(lines, width)
        values[z] = lines[: values.shape[1]]


@numba.njit(cache=True, nogil=True)
def _largest_along_z(values: np.ndarray, width: int) -> None:
    lines = np.zeros((values.shape[0] + width - 1, values.shape[2]), np.int32)
    for y in range(values.shape[1]):
        _copy_padded(lines, values[:, y], width)
        _windowed_maximum(lines, width)
        values[:, y] = lines[: values.shape[0]]


@numba.njit(cache=True, nogil=True)
def _copy_padded(lines: np.ndarray, values: np.ndarray, width: int) -> None:
    """Copy `values` into `lines`, with zeros for half a window before and after."""
    before = width // 2
    lines[:before] = 0
    lines[before : before + values.shape[0]] = values
    lines[before + values.shape[0] :] = 0


@numba.njit(cache=True, nogil=True)
def _windowed_maximum(lines: np.ndarray, width: int) -> None:
    """Set lines[i] to the maximum of lines[i : i + width], for whole rows; the window doubles with each pass."""
    rows, span = lines.shape[0], 1
    while span < width:
        step = min(span, width - span)
        for i in range(rows - step):
            row, row_ahead = lines[i], lines[i + step]
            for x in range(lines.shape[1]):
                row[x] = max(row[x], row_ahead[x])
        span += step
