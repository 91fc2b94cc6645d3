"""Seeded watershed on a bucket queue: time in proportion to the number of voxels.

height    5 1 0 1 3 4 3 0 0 2        a voxel is labelled when its first labelled neighbour is taken from the queue;
seeds     . . A . . . . B . .        the queue hands out the lowest voxel first, and of equally low ones the first
labels    A A A A A B B B B B        that was put in: plateaus divide midway between their shores
"""

import numba
import numpy as np


def seeded_watershed(height: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Flood `height` from `seeds` until every voxel that can be reached over its faces has a label.

    `height` (Z, Y, X) unsigned integers below 2**31 (memory grows with the largest); `seeds` (Z, Y, X) integers, 0
    where there is no seed -> labels (Z, Y, X) int32. As `skimage.segmentation.watershed`, up to the order of equally
    high voxels that are seeds (Meyer, "Un algorithme optimal pour la ligne de partage des eaux", 1991).
    """
    labels = np.empty(seeds.shape, np.int32)
    if seeds.size:
        walled = np.prod([n + 2 for n in seeds.shape])
        _flood(height, seeds, labels, np.empty(seeds.size, np.int32 if walled < 2**31 else np.int64))
    return labels


@numba.njit(cache=True, nogil=True)
def _flood(height: np.ndarray, seeds: np.ndarray, labels: np.ndarray, queue: np.ndarray) -> None:
    # Height and label of a voxel share a place in memory, which is what the flood waits for: a voxel that has no label
    # holds its height, one that has holds the label below zero. A wall around the volume, labelled as well, spares the
    # question whether a neighbour is inside.
    depth, rows, width = height.shape
    step_y = width + 2
    step_z = (rows + 2) * step_y
    states = np.full((depth + 2) * step_z, np.int32(-1))
    first = np.zeros(np.int64(height.max()) + 2, np.int64)
    for z in range(depth):
        for y in range(rows):
            start = (z + 1) * step_z + (y + 1) * step_y + 1
            for x in range(width):
                states[start + x] = np.int32(height[z, y, x])
                first[np.int64(height[z, y, x]) + 1] += 1
    # each voxel enters the queue once, so its bucket has a place for it: one array holds all buckets
    first = np.cumsum(first)  # where each bucket begins, and later goes on
    last = first.copy()
    _sow(states, seeds, queue, last)
    _empty(states, queue, first, last, step_z, step_y)
    for z in range(depth):
        for y in range(rows):
            start = (z + 1) * step_z + (y + 1) * step_y + 1
            for x in range(width):
                labels[z, y, x] = max(np.int32(0), -states[start + x])


@numba.njit(cache=True, nogil=True)
def _sow(states: np.ndarray, seeds: np.ndarray, queue: np.ndarray, last: np.ndarray) -> None:
    """Put the seeds into the queue, in their order in memory."""
    depth, rows, width = seeds.shape
    for z in range(depth):
        for y in range(rows):
            start = ((z + 1) * (rows + 2) + y + 1) * (width + 2) + 1
            for x in range(width):
                if seeds[z, y, x] > 0:
                    level = states[start + x]
                    queue[last[level]] = start + x
                    last[level] += 1
                    states[start + x] = -np.int32(seeds[z, y, x])


@numba.njit(cache=True, nogil=True)
def _empty(
    states: np.ndarray, queue: np.ndarray, first: np.ndarray, last: np.ndarray, step_z: int, step_y: int
) -> None:
    """Take voxels from the queue, the lowest first, until it is empty; their neighbours get their label and follow."""
    current, highest = 0, first.size - 2
    while current <= highest:
        if first[current] == last[current]:
            current += 1
            continue
        voxel = np.int64(queue[first[current]])
        first[current] += 1
        label, lowest = states[voxel], current
        for step in (-step_z, -step_y, -1, 1, step_y, step_z):
            level = states[voxel + step]
            if level >= 0:
                states[voxel + step] = label
                queue[last[level]] = voxel + step
                last[level] += 1
                lowest = min(lowest, int(level))
        current = lowest
