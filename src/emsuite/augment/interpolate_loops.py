"""The loops of `interpolate`, compiled: section by section they work out where to read, many at once, and then read.

`places` are those of a `SamplingGrid`: three axes, planes and two weights. `flat` is what lies in memory
from the first to the last voxel of a volume of `shape`, `strides` the distance from section to section and from row to
row.
"""

import math

import numba
import numpy as np

_BORDER, _OUTSIDE = -1, -2  # where some, or all, of the eight voxels around a place lie outside


@numba.njit(nogil=True, cache=True)
def linear_loop(flat, shape, strides, places, first, out):  # type: ignore[no-untyped-def]
    """Values of a volume at its places, into `out` (Z, Y * X) float32; `first` is room for Y * X numbers of voxels."""
    place, shares = np.empty((3, first.size), np.float32), np.empty((3, first.size), np.float32)
    for z in range(out.shape[0]):
        _place(places, z, place)
        _prepare(shape, strides, place, first, shares)
        _mix(flat, shape, strides, place, first, shares, out[z])


@numba.njit(nogil=True, cache=True)
def nearest_index(shape, strides, places, index):  # type: ignore[no-untyped-def]
    """Where in memory the voxels nearest to the places lie, into `index` (Z, Y * X), -1 outside."""
    place, half = np.empty((3, index.shape[1]), np.float32), np.float32(0.5)
    at_z, at_y, at_x = place[0], place[1], place[2]
    for z in range(index.shape[0]):
        _place(places, z, place)
        section = index[z]
        for i in range(section.size):
            k, j = np.int32(math.floor(at_z[i] + half)), np.int32(math.floor(at_y[i] + half))
            c = np.int32(math.floor(at_x[i] + half))
            inside = (k >= 0) & (k < shape[0]) & (j >= 0) & (j < shape[1]) & (c >= 0) & (c < shape[2])
            section[i] = k * strides[0] + j * strides[1] + c if inside else -1


@numba.njit(nogil=True, cache=True)
def gather(flat, index, out):  # type: ignore[no-untyped-def]
    """`flat` at `index` (N) into `out` (N), 0 where that is -1."""
    for i in range(out.size):
        out[i] = flat[index[i]] if index[i] >= 0 else 0


@numba.njit(nogil=True, cache=True)
def _place(places, z, place):  # type: ignore[no-untyped-def]
    # of a whole section, so that the second product is large enough for a library's: row by row it took twice as long
    axes_z, axes_y, axes_x, planes, weights_y, weights_x = places
    shape = axes_y.shape[1], axes_x.shape[1]
    for c in range(3):
        found, along = place[c].reshape(shape), axes_x[c]
        if planes[z, c].any():  # an axis may lie straight
            np.dot(np.dot(weights_y, planes[z, c]), weights_x, found)
        else:
            found[:] = 0
        for y in range(shape[0]):
            row, offset = found[y], axes_z[c, z] + axes_y[c, y]
            for x in range(shape[1]):
                row[x] += offset + along[x]


@numba.njit(nogil=True, cache=True)
def _prepare(shape, strides, place, first, shares):  # type: ignore[no-untyped-def]
    # without a branch, so that the compiler takes several places at once
    z, y, x, share_z, share_y, share_x = place[0], place[1], place[2], shares[0], shares[1], shares[2]
    for i in range(first.size):
        k, j, c = np.int32(math.floor(z[i])), np.int32(math.floor(y[i])), np.int32(math.floor(x[i]))
        share_z[i], share_y[i], share_x[i] = z[i] - np.float32(k), y[i] - np.float32(j), x[i] - np.float32(c)
        inside = (k >= 0) & (k < shape[0] - 1) & (j >= 0) & (j < shape[1] - 1) & (c >= 0) & (c < shape[2] - 1)
        outside = (k < -1) | (k >= shape[0]) | (j < -1) | (j >= shape[1]) | (c < -1) | (c >= shape[2])
        first[i] = k * strides[0] + j * strides[1] + c if inside else (_OUTSIDE if outside else _BORDER)


@numba.njit(nogil=True, cache=True)
def _mix(flat, shape, strides, place, first, shares, out):  # type: ignore[no-untyped-def]
    z, y, x, share_z, share_y, share_x = place[0], place[1], place[2], shares[0], shares[1], shares[2]
    # a function per plane would cost more than the reading: arrays that are handed on are counted
    for i in range(out.size):
        k, wz, wy, wx = np.int64(first[i]), share_z[i], share_y[i], share_x[i]
        if k < 0:
            out[i] = _at_border(flat, shape, strides, z[i], y[i], x[i]) if k == _BORDER else 0
            continue
        upper = _between(flat[k], flat[k + 1], wx)
        value = _between(upper, _between(flat[k + strides[1]], flat[k + strides[1] + 1], wx), wy)
        if wz != 0:  # where sections are only moved within their plane, the next one weighs nothing
            k += strides[0]
            upper = _between(flat[k], flat[k + 1], wx)
            value = _between(
                value, _between(upper, _between(flat[k + strides[1]], flat[k + strides[1] + 1], wx), wy), wz
            )
        out[i] = value


@numba.njit(nogil=True, cache=True)
def _between(first, second, weight):  # type: ignore[no-untyped-def]
    return np.float32(first) * (np.float32(1) - weight) + np.float32(second) * weight


@numba.njit(nogil=True, cache=True)
def _at_border(flat, shape, strides, z, y, x):  # type: ignore[no-untyped-def]
    k, j, c = np.int64(math.floor(z)), np.int64(math.floor(y)), np.int64(math.floor(x))
    value = np.float32(0)
    for place_z, share_z in ((k, k + 1 - z), (k + 1, z - k)):
        for place_y, share_y in ((j, j + 1 - y), (j + 1, y - j)):
            for place_x, share_x in ((c, c + 1 - x), (c + 1, x - c)):
                if 0 <= place_z < shape[0] and 0 <= place_y < shape[1] and 0 <= place_x < shape[2]:
                    found = flat[place_z * strides[0] + place_y * strides[1] + place_x]
                    value += np.float32(share_z * share_y * share_x * found)
    return value
