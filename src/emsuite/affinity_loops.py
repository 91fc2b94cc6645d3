"""The loop of `affinities`, compiled: numbers as wide as labels, which the compiler makes several of at once."""

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
