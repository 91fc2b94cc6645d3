"""The loop of `affinities`, compiled: numbers as wide as labels, which the compiler makes several of at once.

The loops of `balance`, compiled: one reading to count, one writing, where torch takes nine passes over floats.

The loops of `boundary`, compiled: one pass over the volume for each step, where torch takes six.
"""

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def relate(labels, shape, begin, shifts, out):  # type: ignore[no-untyped-def]
    """1 where a voxel and its partner carry the same label, not 0, else 0, into `out` (C, Z, Y, X) float32.

    labels: (N) int32, a volume of `shape` (Z, Y, X) as it lies in memory; `begin` is the voxel of the volume that
    out[:, 0, 0, 0] stands for, `shifts` (C) how far in memory partners lie. Every partner must lie in the volume.
    """
    channels, depth, height, width = out.shape
    for c in range(channels):
        for z in range(depth):
            for y in range(height):
                first = ((z + begin[0]) * shape[1] + y + begin[1]) * shape[2] + begin[2]
                here = labels[first : first + width]
                there = labels[first + shifts[c] : first + shifts[c] + width]
                row = out[c, z, y]
                for x in range(width):
                    row[x] = np.float32(np.int32(here[x] == there[x]) * np.int32(here[x] != 0))


@numba.njit(nogil=True, cache=True)
def count(ones, inside):  # type: ignore[no-untyped-def]
    """How many entries are inside, (N) uint8 {0, 1} or None for all, and how many of these are not 0 in `ones` (N)."""
    total, positive = np.int64(0), np.int64(0)
    for i in range(ones.size):
        if inside is None:
            positive += ones[i] != 0
        else:
            total += inside[i]
            positive += (ones[i] != 0) & inside[i]
    return ones.size if inside is None else total, positive


@numba.njit(nogil=True, cache=True)
def weigh(ones, inside, weight_one, weight_zero, out):  # type: ignore[no-untyped-def]
    """The weight of each entry into `out` (N) float32, 0 outside."""
    for i in range(out.size):
        weight = weight_one if ones[i] != 0 else weight_zero
        out[i] = weight if inside is None else np.float32(inside[i]) * weight


@numba.njit(nogil=True, cache=True)
def only_known(values, known, most, out):  # type: ignore[no-untyped-def]
    """The values (N), but `most` where `known` (N) is 0, into `out`."""
    for i in range(values.size):
        out[i] = values[i] if known[i] else most


@numba.njit(nogil=True, cache=True)
def spread_lowest(values, in_plane, out):  # type: ignore[no-untyped-def]
    """The lowest of each voxel and its neighbours along the axes; both (Z, Y, X).

    In z there are no neighbours if `in_plane`, and nowhere beyond the border.
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
def keep(labels, lowest, highest, out):  # type: ignore[no-untyped-def]
    """The labels (N) where lowest >= highest and not both are 0, else 0, into `out`."""
    for i in range(labels.size):
        one = (lowest[i] >= highest[i]) & ((lowest[i] | highest[i]) != 0)
        out[i] = labels[i] if one else 0
