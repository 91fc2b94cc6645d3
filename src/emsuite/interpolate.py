"""Values of a volume between its voxels: linear, or of the nearest voxel; 0 outside.

On the CPU loops compiled by numba, which read the volume as it is stored, be it a piece of a larger one: torch's
`grid_sample` wants it as float32 first and took ten times as much processor time (6 million places: 0.2 s of one core,
against 0.02 s). They first work out, many places at once, where to read, and then read. Elsewhere torch.
"""

import math
from collections.abc import Sequence

import numba
import numpy as np
import torch
from torch.nn.functional import grid_sample

_BORDER, _OUTSIDE = -1, -2  # where some, or all, of the eight voxels around a place lie outside
_TOGETHER = 4096  # places whose weights stay in the processor's first cache


def linear(source: torch.Tensor, places: torch.Tensor, out: torch.Tensor) -> None:
    """`source` (Z, Y, X), any type, at `places` (3, ...) float32 voxels, into `out` (...) float32."""
    if source.device.type == "cpu":
        memory, strides = _memory(source)
        first, weights = np.empty(_TOGETHER, _index_type(memory)), np.empty((3, _TOGETHER), np.float32)
        _linear_loop(
            memory, tuple(source.shape), strides, places.flatten(1).numpy(), first, weights, out.view(-1).numpy()
        )
    else:
        linear_torch(source, places, out)


def nearest(sources: Sequence[torch.Tensor], places: torch.Tensor, outs: Sequence[torch.Tensor]) -> None:
    """`sources` (Z, Y, X) on one grid at the voxels nearest to `places` (3, ...), into `outs` (...).

    Half-way between voxels, the higher index.
    """
    if sources[0].device.type != "cpu":
        nearest_torch(sources, places, outs)
        return
    indices: dict[tuple[int, int], np.ndarray] = {}
    for source, out in zip(sources, outs, strict=True):
        memory, strides = _memory(source)
        if strides not in indices:
            indices[strides] = np.empty(out.numel(), _index_type(memory))
            _nearest_index(tuple(source.shape), strides, places.flatten(1).numpy(), indices[strides])
        _gather(memory, indices[strides], out.view(-1).numpy())


def linear_torch(source: torch.Tensor, places: torch.Tensor, out: torch.Tensor) -> None:
    """As `linear`, on any device; the source is copied as float32."""
    grid = torch.stack([(2 * place + 1) / size - 1 for place, size in zip(places, source.shape, strict=True)][::-1], -1)
    values = grid_sample(source.float()[None, None], grid.view(1, -1, 1, 1, 3), align_corners=False)
    out.copy_(values.view(out.shape))


def nearest_torch(sources: Sequence[torch.Tensor], places: torch.Tensor, outs: Sequence[torch.Tensor]) -> None:
    """As `nearest`, on any device."""
    index = (places + 0.5).floor().long()
    inside = torch.ones_like(index[0], dtype=torch.bool)
    for along, size in zip(index, sources[0].shape, strict=True):
        inside &= (along >= 0) & (along < size)
        along.clamp_(0, size - 1)
    for source, out in zip(sources, outs, strict=True):
        torch.mul(source[tuple(index)], inside, out=out)


def _memory(source: torch.Tensor) -> tuple[np.ndarray, tuple[int, int]]:
    """What lies in memory from the first to the last voxel, and the distance from section to section, row to row."""
    if source.stride(2) != 1:
        source = source.contiguous()
    span = 1 + sum((n - 1) * s for n, s in zip(source.shape, source.stride(), strict=True))
    return source.as_strided((span,), (1,)).numpy(), (source.stride(0), source.stride(1))


def _index_type(memory: np.ndarray) -> type[np.integer]:
    return np.int32 if memory.size < 2**31 else np.int64  # twice as many narrow ones are worked out at once


@numba.njit(nogil=True, cache=True)
def _linear_loop(flat, shape, strides, places, first, weights, out):  # type: ignore[no-untyped-def]
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
def _nearest_index(shape, strides, places, index):  # type: ignore[no-untyped-def]
    half = np.float32(0.5)
    z, y, x = places[0], places[1], places[2]
    for i in range(index.size):
        k, j = np.int32(math.floor(z[i] + half)), np.int32(math.floor(y[i] + half))
        c = np.int32(math.floor(x[i] + half))
        inside = (k >= 0) & (k < shape[0]) & (j >= 0) & (j < shape[1]) & (c >= 0) & (c < shape[2])
        index[i] = k * strides[0] + j * strides[1] + c if inside else -1


@numba.njit(nogil=True, cache=True)
def _gather(flat, index, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        out[i] = flat[index[i]] if index[i] >= 0 else 0
