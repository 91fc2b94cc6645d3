"""Compiled loops of the targets on the CPU.

affinities       one pass, on int32 as wide as the labels, so that the compiler can vectorize it
class balance    one pass to count and one to write; torch needs nine passes over floats
boundary         one pass over the volume per step; torch needs six
"""

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def affinity_loop(labels, shape, begin, shifts, out):  # type: ignore[no-untyped-def]
    """Write 1 where a voxel and its partner carry the same label, not 0, else 0, into `out`.

    Args:
        labels: (N) int32, a volume of `shape` (Z, Y, X) in C order.
        shape: see `labels`.
        begin: the voxel of the volume at out[:, 0, 0, 0].
        shifts: (C) distance in memory from a voxel to its partner; every partner lies in the volume.
        out: (C, Z, Y, X) float32.
    """
    channels, depth, height, width = out.shape
    for c in range(channels):
        for z in range(depth):
            for y in range(height):
                first = ((z + begin[0]) * shape[1] + y + begin[1]) * shape[2] + begin[2]
                voxels = labels[first : first + width]
                partners = labels[first + shifts[c] : first + shifts[c] + width]
                row = out[c, z, y]
                for x in range(width):
                    row[x] = np.float32(np.int32(voxels[x] == partners[x]) * np.int32(voxels[x] != 0))


@numba.njit(nogil=True, cache=True)
def count_loop(ones, inside):  # type: ignore[no-untyped-def]
    """Return how many entries are `inside` ((N) uint8 {0, 1}, None: all), and how many of them are not 0 in `ones`."""
    total, positive = np.int64(0), np.int64(0)
    for i in range(ones.size):
        if inside is None:
            positive += ones[i] != 0
        else:
            total += inside[i]
            positive += (ones[i] != 0) & inside[i]
    return ones.size if inside is None else total, positive


@numba.njit(nogil=True, cache=True)
def weight_loop(ones, inside, weight_one, weight_zero, out):  # type: ignore[no-untyped-def]
    """Write the weight of each entry into `out` (N) float32: that of a one or of a zero, 0 outside the mask."""
    for i in range(out.size):
        weight = weight_one if ones[i] != 0 else weight_zero
        out[i] = weight if inside is None else np.float32(inside[i]) * weight


@numba.njit(nogil=True, cache=True)
def fill_unmasked_loop(values, mask, fill, out):  # type: ignore[no-untyped-def]
    """Write the values (N), but `fill` where `mask` (N) is 0, into `out`."""
    for i in range(values.size):
        out[i] = values[i] if mask[i] else fill


@numba.njit(nogil=True, cache=True)
def spread_lowest_loop(values, in_plane, out):  # type: ignore[no-untyped-def]
    """Write the lowest value of each voxel and its neighbours along the axes into `out`; both (Z, Y, X).

    If `in_plane`, voxels have no neighbours in z. Nothing lies beyond the border.
    """
    depth, height, width = values.shape
    for z in range(depth):
        above = z if in_plane else max(z - 1, 0)
        below = z if in_plane else min(z + 1, depth - 1)
        for y in range(height):
            left, right = max(y - 1, 0), min(y + 1, height - 1)
            a, b, c, d, e = values[z, y], values[above, y], values[below, y], values[z, left], values[z, right]
            row = out[z, y]
            for x in range(width):
                row[x] = min(min(min(a[x], b[x]), min(c[x], d[x])), e[x])
            for x in range(1, width):
                row[x] = min(row[x], a[x - 1])
            for x in range(width - 1):
                row[x] = min(row[x], a[x + 1])


@numba.njit(nogil=True, cache=True)
def grow_boundary_loop(labels, lowest, highest, out):  # type: ignore[no-untyped-def]
    """Write the labels (N) where lowest >= highest and not both are 0, else 0, into `out`."""
    for i in range(labels.size):
        is_inside = (lowest[i] >= highest[i]) & ((lowest[i] | highest[i]) != 0)
        out[i] = labels[i] if is_inside else 0
