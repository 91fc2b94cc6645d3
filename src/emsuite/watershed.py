"""Seeded watershed on a bucket queue: time in proportion to the number of voxels.

height    5 1 0 1 3 4 3 0 0 2        a voxel is labelled when its first labelled neighbour is taken from the queue;
seeds     . . A . . . . B . .        the queue hands out the lowest voxel first, and of equally low ones the first
labels    A A A A A B B B B B        that was put in: plateaus divide midway between their shores
"""

import numba
import numpy as np


def seeded_watershed(height: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Flood `height` from `seeds` until every voxel that can be reached over its faces has a label.

    `height` (Z, Y, X) unsigned integers (memory grows with the largest); `seeds` (Z, Y, X) integers, 0 where there is
    no seed -> labels (Z, Y, X) int32. As `skimage.segmentation.watershed`, up to the order of equally high voxels that
    are seeds (Meyer, "Un algorithme optimal pour la ligne de partage des eaux", 1991).
    """
    # a wall of -1 around the volume spares the flood the question whether a neighbour is inside
    labels = np.pad(seeds.astype(np.int32, copy=False), 1, constant_values=-1)
    levels = np.pad(height, 1)
    queue = np.empty(seeds.size, np.int32 if labels.size < 2**31 else np.int64)
    if seeds.size:
        _flood(levels.ravel(), labels.ravel(), queue, levels.shape[1] * levels.shape[2], levels.shape[2])
    return labels[1:-1, 1:-1, 1:-1]


@numba.njit(cache=True, nogil=True)
def _flood(levels: np.ndarray, labels: np.ndarray, queue: np.ndarray, step_z: int, step_y: int) -> None:
    # Each voxel enters the queue once, so its bucket has a place for it: one array holds all buckets.
    highest = int(levels.max())
    first = np.zeros(highest + 2, np.int64)
    for voxel in range(labels.size):
        if labels[voxel] >= 0:
            first[int(levels[voxel]) + 1] += 1
    first = np.cumsum(first)  # where each bucket begins, and later goes on
    last = first.copy()
    for voxel in range(labels.size):
        if labels[voxel] > 0:
            level = int(levels[voxel])
            queue[last[level]] = voxel
            last[level] += 1
    current = 0
    while current <= highest:
        if first[current] == last[current]:
            current += 1
            continue
        voxel = int(queue[first[current]])
        first[current] += 1
        for step in (-step_z, -step_y, -1, 1, step_y, step_z):
            neighbor = voxel + step
            if labels[neighbor] == 0:
                labels[neighbor] = labels[voxel]
                level = int(levels[neighbor])
                queue[last[level]] = neighbor
                last[level] += 1
                if level < current:
                    current = level
