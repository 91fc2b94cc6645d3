"""A seeded watershed whose result does not depend on blocks: floods of blocks, put together, equal that of the volume.

A watershed on a queue breaks ties by the order in which voxels entered it, so its result depends on everything that
was flooded before. Here a voxel's place in the order is a number of its own, its key: what the queue of Meyer (1991)
orders by, cut after two terms. A key grows from voxel to voxel as water does:

    (level, steps, level before, steps before, depth)

    neighbour higher than the level    (its height, 0, level, steps, 0)      the water rises
    neighbour at the level             (level, steps + 1, ..., 0)            it spreads over a plateau
    neighbour below the level          (level, steps, ..., depth + 1)        it fills a basin

The key of a voxel is the smallest that any path from a seed gives it, and its label is that of the neighbour with the
smallest key; among equal keys, the smallest label. Keys grow with each step, so this has one solution, and blocks find
it in rounds: each floods itself from its seeds and from its neighbours' faces of the round before, until no face
changes. The smallest key is found as by Dijkstra (1959).

Where heights do not tie, the result is that of `skimage.segmentation.watershed`; among ties the two may choose
differently.
"""

from collections.abc import Mapping

import numba
import numpy as np

Side = tuple[int, int]
"""An axis, and 0 for its begin or 1 for its end."""
Face = tuple[np.ndarray, np.ndarray]
"""Keys (int64) and labels (uint64) of a plane of voxels, which has the axes that are left."""

SIDES: tuple[Side, ...] = tuple((axis, end) for axis in range(3) for end in (0, 1))
NEVER = np.iinfo(np.int64).max
"""The key of a voxel that no flood reaches."""

_LEVEL, _STEPS, _LEVEL_BEFORE, _STEPS_BEFORE = 55, 35, 27, 15
"""The bits of a key where its terms begin. Terms that are too large stay at their largest value."""
_MOST_STEPS, _MOST_STEPS_BEFORE, _MOST_DEPTH = 2**20 - 1, 2**12 - 1, 2**15 - 1


def flood(
    height: np.ndarray, inside: np.ndarray, seeds: np.ndarray, around: Mapping[Side, Face] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Flood a block from its seeds, and from voxels around it.

    Args:
        height: (Z, Y, X) uint8.
        inside: (Z, Y, X) bool; no flood goes elsewhere, and seeds elsewhere do not count.
        seeds: (Z, Y, X) uint64 labels, 0 where there is no seed.
        around: The voxels beyond some of the sides, with the keys and labels that are known so far.

    Returns:
        Labels (uint64) and keys (int64), both (Z, Y, X); 0 and `NEVER` where no flood arrives.
    """
    around = around or {}
    ids, ranks = _ranks(seeds, around)
    padding = ((2, 2), (1, 1), (1, 1))  # so that no step leaves the arrays, even from a voxel around the block
    inner = tuple(slice(before, before + n) for (before, _), n in zip(padding, seeds.shape, strict=True))
    shape = tuple(n + sum(pad) for n, pad in zip(seeds.shape, padding, strict=True))
    heights, labels, keys = np.zeros(shape, np.uint8), np.zeros(shape, np.uint32), np.full(shape, NEVER)
    is_open = np.zeros(shape, bool)
    heights[inner], labels[inner] = height, np.where(inside, ranks(seeds), 0)
    is_open[inner] = inside & (labels[inner] == 0)
    keys[inner] = np.where(labels[inner] != 0, height.astype(np.int64) << _LEVEL, NEVER)
    for (axis, end), (face_keys, face_labels) in around.items():
        place: list[slice | int] = list(inner)
        part = inner[axis]
        place[axis] = part.stop if end else part.start - 1
        keys[tuple(place)], labels[tuple(place)] = face_keys, ranks(face_labels)
    _flood(heights.ravel(), labels.ravel(), keys.ravel(), is_open.ravel(), shape[1] * shape[2], shape[2])
    return ids[labels[inner]], np.ascontiguousarray(keys[inner])


def face_of(keys: np.ndarray, labels: np.ndarray, side: Side) -> Face:
    """Return the outermost plane of a block at one of its sides."""
    axis, end = side
    return tuple(np.ascontiguousarray(np.take(values, -end, axis)) for values in (keys, labels))  # type: ignore[return-value]


def _ranks(seeds: np.ndarray, around: Mapping[Side, Face]) -> tuple[np.ndarray, "_Ranks"]:
    ids = np.unique(
        np.concatenate([np.zeros(1, np.uint64), _distinct(seeds), *(_distinct(f[1]) for f in around.values())])
    )
    return ids, _Ranks(ids)


def _distinct(labels: np.ndarray) -> np.ndarray:
    import fastremap

    return np.asarray(fastremap.unique(np.ascontiguousarray(labels, np.uint64)))


class _Ranks:
    """Turns labels into their ranks among `ids` (uint64, ascending), which are smaller and in the same order."""

    def __init__(self, ids: np.ndarray):
        self.table = {int(label): rank for rank, label in enumerate(ids)}

    def __call__(self, labels: np.ndarray) -> np.ndarray:
        import fastremap

        return np.asarray(fastremap.remap(np.ascontiguousarray(labels, np.uint64), self.table)).astype(np.uint32)


@numba.njit(cache=True, nogil=True)
def _step(key: np.int64, height: np.int64) -> np.int64:
    """Return the key behind a step from a voxel with `key` to one of this height."""
    level = key >> _LEVEL
    steps = (key >> _STEPS) & _MOST_STEPS
    if height > level:
        before = steps if steps < _MOST_STEPS_BEFORE else np.int64(_MOST_STEPS_BEFORE)
        return (height << _LEVEL) | (level << _LEVEL_BEFORE) | (before << _STEPS_BEFORE)
    depth = key & _MOST_DEPTH
    if height == level:
        return key - depth + (np.int64(1) << _STEPS if steps < _MOST_STEPS else np.int64(0))
    return key + (1 if depth < _MOST_DEPTH else 0)


@numba.njit(cache=True, nogil=True)
def _flood(
    heights: np.ndarray, labels: np.ndarray, keys: np.ndarray, is_open: np.ndarray, step_z: int, step_y: int
) -> None:
    """Take the voxel with the smallest key and label, and give its label to its open neighbours, until none is left."""
    steps = (-step_z, -step_y, -1, 1, step_y, step_z)
    heap = np.empty(labels.size, np.int64)  # voxels; pages that are never written take no memory
    size = 0
    for voxel in range(step_z, labels.size - step_z):
        if labels[voxel] != 0:
            for step in steps:
                if is_open[voxel + step]:
                    size = _push(heap, size, voxel, keys, labels)
                    break
    while size > 0:
        voxel = heap[0]
        size = _pop(heap, size, keys, labels)
        for step in steps:
            neighbour = voxel + step
            if is_open[neighbour]:
                is_open[neighbour] = False
                labels[neighbour] = labels[voxel]
                keys[neighbour] = _step(keys[voxel], np.int64(heights[neighbour]))
                size = _push(heap, size, neighbour, keys, labels)


@numba.njit(cache=True, nogil=True, inline="always")
def _is_before(a: int, b: int, keys: np.ndarray, labels: np.ndarray) -> bool:
    return bool(keys[a] < keys[b] or (keys[a] == keys[b] and labels[a] < labels[b]))


@numba.njit(cache=True, nogil=True)
def _push(heap: np.ndarray, size: int, voxel: int, keys: np.ndarray, labels: np.ndarray) -> int:
    place = size
    while place > 0:
        above = (place - 1) >> 1
        if not _is_before(voxel, heap[above], keys, labels):
            break
        heap[place] = heap[above]
        place = above
    heap[place] = voxel
    return size + 1


@numba.njit(cache=True, nogil=True)
def _pop(heap: np.ndarray, size: int, keys: np.ndarray, labels: np.ndarray) -> int:
    size -= 1
    last, place = heap[size], 0
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and _is_before(heap[child + 1], heap[child], keys, labels):
            child += 1
        if not _is_before(heap[child], last, keys, labels):
            break
        heap[place] = heap[child]
        place = child
    heap[place] = last
    return size
