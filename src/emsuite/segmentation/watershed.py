"""Seeded watershed on a bucket queue. Its time is proportional to the number of voxels.

height    5 1 0 1 3 4 3 0 0 2        A voxel gets its label when its first labelled neighbour leaves the queue.
seeds     . . A . . . . B . .        The lowest voxel leaves the queue first; among equally low voxels, the one that
labels    A A A A A B B B B B        entered first. So two labels meet in the middle of a plateau.
"""

import numba
import numpy as np


def seeded_watershed(height: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Flood `height` from `seeds` until every voxel that can be reached over voxel faces has a label.

    The labels equal those of `skimage.segmentation.watershed`, except that seed voxels of equal height may enter the
    queue in another order.

    Args:
        height: (Z, Y, X) unsigned integers below 2**31. Memory grows with the largest height.
        seeds: (Z, Y, X) integers, 0 where there is no seed.

    Returns:
        The labels, (Z, Y, X) int32, 0 where the flood does not reach.

    Source: Meyer, "Un algorithme optimal pour la ligne de partage des eaux", 1991.
    """
    labels = np.empty(seeds.shape, np.int32)
    if seeds.size:
        walled = np.prod([n + 2 for n in seeds.shape])
        _flood(height, seeds, labels, np.empty(seeds.size, np.int32 if walled < 2**31 else np.int64))
    return labels


@numba.njit(cache=True, nogil=True)
def _flood(height: np.ndarray, seeds: np.ndarray, labels: np.ndarray, queue: np.ndarray) -> None:
    # The flood is bound by memory access, so the height and the label of a voxel share one number: the height until the
    # voxel has a label, then the negative label. A labelled wall around the volume saves the check whether a neighbour
    # is inside.
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
    # each voxel enters the queue once, so one array with a range per height holds all buckets
    first = np.cumsum(first)  # the next voxel to leave each bucket
    last = first.copy()  # where the next voxel enters each bucket
    _enqueue_seeds(states, seeds, queue, last)
    _drain_queue(states, queue, first, last, step_z, step_y)
    for z in range(depth):
        for y in range(rows):
            start = (z + 1) * step_z + (y + 1) * step_y + 1
            for x in range(width):
                labels[z, y, x] = max(np.int32(0), -states[start + x])


@numba.njit(cache=True, nogil=True)
def _enqueue_seeds(states: np.ndarray, seeds: np.ndarray, queue: np.ndarray, last: np.ndarray) -> None:
    """Put the seeds into the queue in the order of their voxels in memory."""
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
def _drain_queue(
    states: np.ndarray, queue: np.ndarray, first: np.ndarray, last: np.ndarray, step_z: int, step_y: int
) -> None:
    """Take the lowest voxel from the queue, label its unlabelled neighbours and add them, until the queue is empty."""
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
