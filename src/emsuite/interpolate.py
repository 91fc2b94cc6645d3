"""Values of a volume between its voxels: linear, or of the nearest voxel; 0 outside.

On the CPU a loop compiled by numba, which reads the volume as it is stored: torch's `grid_sample` wants it as float32
first and took five times as much processor time (6 million places: 0.2 s of one core, against 0.04 s). Elsewhere
torch.
"""

from itertools import product

import numba
import numpy as np
import torch


def linear(source: torch.Tensor, places: torch.Tensor, out: torch.Tensor) -> None:
    """`source` (Z, Y, X), any type, at `places` (3, ...) float32 voxels, into `out` (...) float32."""
    if source.device.type == "cpu":
        z, y, x = places.flatten(1).numpy()
        _linear_loop(source.numpy(), z, y, x, out.view(-1).numpy())
    else:
        linear_torch(source, places, out)


def nearest(source: torch.Tensor, places: torch.Tensor, out: torch.Tensor) -> None:
    """`source` (Z, Y, X) at the voxels nearest to `places` (3, ...), into `out` (...); half-way, the higher index."""
    if source.device.type == "cpu":
        z, y, x = places.flatten(1).numpy()
        _nearest_loop(source.numpy(), z, y, x, out.view(-1).numpy())
    else:
        nearest_torch(source, places, out)


def linear_torch(source: torch.Tensor, places: torch.Tensor, out: torch.Tensor) -> None:
    """As `linear`, on any device."""
    base = places.floor()
    weight = places - base
    index = base.long()
    out.zero_()
    for corner in product((0, 1), repeat=3):
        share = torch.ones_like(out)
        for axis, high in enumerate(corner):
            share *= weight[axis] if high else 1 - weight[axis]
        out += share * _at(source, [index[axis] + high for axis, high in enumerate(corner)])


def nearest_torch(source: torch.Tensor, places: torch.Tensor, out: torch.Tensor) -> None:
    """As `nearest`, on any device."""
    out.copy_(_at(source, list((places + 0.5).floor().long())))


def _at(source: torch.Tensor, index: list[torch.Tensor]) -> torch.Tensor:
    inside = torch.ones_like(index[0], dtype=torch.bool)
    flat = torch.zeros_like(index[0])
    for axis, size in enumerate(source.shape):
        inside &= (index[axis] >= 0) & (index[axis] < size)
        flat = flat * size + index[axis].clamp(0, size - 1)
    return torch.take(source, flat) * inside


@numba.njit(nogil=True, cache=True)
def _floor(number):  # type: ignore[no-untyped-def]
    whole = np.int64(number)
    return whole - 1 if number < np.float32(whole) else whole


@numba.njit(nogil=True, cache=True)
def _in_plane(flat, first, row, wy, wx):  # type: ignore[no-untyped-def]
    one = np.float32(1)
    upper = np.float32(flat[first]) * (one - wx) + np.float32(flat[first + 1]) * wx
    lower = np.float32(flat[first + row]) * (one - wx) + np.float32(flat[first + row + 1]) * wx
    return upper * (one - wy) + lower * wy


@numba.njit(nogil=True, cache=True)
def _at_border(source, z, y, x, wz, wy, wx):  # type: ignore[no-untyped-def]
    sections, rows, columns = source.shape
    one = np.float32(1)
    value = np.float32(0)
    for k in range(2):
        for j in range(2):
            for i in range(2):
                if 0 <= z + k < sections and 0 <= y + j < rows and 0 <= x + i < columns:
                    share = (wz if k else one - wz) * (wy if j else one - wy) * (wx if i else one - wx)
                    value += share * np.float32(source[z + k, y + j, x + i])
    return value


@numba.njit(nogil=True, cache=True)
def _linear_loop(source, places_z, places_y, places_x, out):  # type: ignore[no-untyped-def]
    sections, rows, columns = source.shape
    flat = source.ravel()
    one = np.float32(1)
    for i in range(out.size):
        z, y, x = _floor(places_z[i]), _floor(places_y[i]), _floor(places_x[i])
        wz, wy, wx = places_z[i] - np.float32(z), places_y[i] - np.float32(y), places_x[i] - np.float32(x)
        if 0 <= z < sections - 1 and 0 <= y < rows - 1 and 0 <= x < columns - 1:
            first = (z * rows + y) * columns + x
            value = _in_plane(flat, first, columns, wy, wx)
            # where sections are only moved within their plane, the next one weighs nothing
            if wz != 0:
                value = value * (one - wz) + _in_plane(flat, first + rows * columns, columns, wy, wx) * wz
            out[i] = value
        else:
            out[i] = _at_border(source, z, y, x, wz, wy, wx)


@numba.njit(nogil=True, cache=True)
def _nearest_loop(source, places_z, places_y, places_x, out):  # type: ignore[no-untyped-def]
    sections, rows, columns = source.shape
    half = np.float32(0.5)
    for i in range(out.size):
        z, y, x = _floor(places_z[i] + half), _floor(places_y[i] + half), _floor(places_x[i] + half)
        if 0 <= z < sections and 0 <= y < rows and 0 <= x < columns:
            out[i] = source[z, y, x]
        else:
            out[i] = 0
