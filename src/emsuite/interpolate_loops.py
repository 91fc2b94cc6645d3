"""The loops of `interpolate`, compiled: they work out, many places at once, where to read, and then read."""

import math

import numba
import numpy as np

_BORDER, _OUTSIDE = -1, -2  # where some, or all, of the eight voxels around a place lie outside


@numba.njit(nogil=True, cache=True)
def linear_loop(flat, shape, strides, places, first, weights, out):  # type: ignore[no-untyped-def]
    """Values of a (Z, Y, X) volume of `shape` at `places` (3, N) float32 voxels, into `out` (N) float32.

    `flat` is what lies in memory from its first to its last voxel, `strides` the distance from section to section and
    from row to row; `first` (M) and `weights` (3, M) are room for M places at once.
    """
    places_z, places_y, places_x = places[0], places[1], places[2]
    weights_z, weights_y, weights_x = weights[0], weights[1], weights[2]
    for begin in range(0, out.size, first.size):
        n = min(first.size, out.size - begin)
        z, y, x = places_z[begin : begin + n], places_y[begin : begin + n], places_x[begin : begin + n]
        _prepare(shape, strides, z, y, x, first[:n], weights_z, weights_y, weights_x)
        _mix(flat, shape, strides, z, y, x, first[:n], weights_z, weights_y, weights_x, out[begin : begin + n])


@numba.njit(nogil=True, cache=True)
def _prepare(shape, strides, z, y, x, first, weight_z, weight_y, weight_x):  # type: ignore[no-untyped-def]
    # without a branch, so that the compiler takes several places at once
    for i in range(first.size):
        k, j, c = np.int32(math.floor(z[i])), np.int32(math.floor(y[i])), np.int32(math.floor(x[i]))
        weight_z[i], weight_y[i], weight_x[i] = z[i] - np.float32(k), y[i] - np.float32(j), x[i] - np.float32(c)
        inside = (k >= 0) & (k < shape[0] - 1) & (j >= 0) & (j < shape[1] - 1) & (c >= 0) & (c < shape[2] - 1)
        outside = (k < -1) | (k >= shape[0]) | (j < -1) | (j >= shape[1]) | (c < -1) | (c >= shape[2])
        first[i] = k * strides[0] + j * strides[1] + c if inside else (_OUTSIDE if outside else _BORDER)


@numba.njit(nogil=True, cache=True)
def _mix(flat, shape, strides, z, y, x, first, weight_z, weight_y, weight_x, out):  # type: ignore[no-untyped-def]
    # a function per plane would cost more than the reading: arrays that are handed on are counted
    for i in range(out.size):
        k, wz, wy, wx = np.int64(first[i]), weight_z[i], weight_y[i], weight_x[i]
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


@numba.njit(nogil=True, cache=True)
def nearest_index(shape, strides, places, index):  # type: ignore[no-untyped-def]
    """Where in memory the voxels nearest to `places` (3, N) lie, into `index` (N), -1 outside; as in `linear_loop`."""
    half = np.float32(0.5)
    z, y, x = places[0], places[1], places[2]
    for i in range(index.size):
        k, j = np.int32(math.floor(z[i] + half)), np.int32(math.floor(y[i] + half))
        c = np.int32(math.floor(x[i] + half))
        inside = (k >= 0) & (k < shape[0]) & (j >= 0) & (j < shape[1]) & (c >= 0) & (c < shape[2])
        index[i] = k * strides[0] + j * strides[1] + c if inside else -1


@numba.njit(nogil=True, cache=True)
def gather(flat, index, out):  # type: ignore[no-untyped-def]
    """`flat` at `index` into `out`, 0 where that is -1."""
    for i in range(out.size):
        out[i] = flat[index[i]] if index[i] >= 0 else 0
