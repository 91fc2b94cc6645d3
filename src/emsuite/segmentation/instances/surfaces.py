"""The surfaces of blocks, by which components that cross their borders are joined.

A block touches 26 others, over faces, edges and corners. Each pair is looked at once, from the block in front.

    block A   . 1 1 |       the last plane of A and the first of B: voxels that touch, diagonals as well, join
    block B         | 4 4 .       1 of A and 4 of B
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from emsuite.common.files import atomic_path
from emsuite.segmentation.instances.flood import SIDES, Face, Side

Direction = tuple[int, int, int]
Surface = Mapping[Side, np.ndarray]
"""The outermost planes of a block, each with the two axes that are left, in the order z, y, x."""

FORWARD: tuple[Direction, ...] = tuple(d for d in itertools.product((-1, 0, 1), repeat=3) if d > (0, 0, 0))  # type: ignore[misc]
"""The directions of one half of the neighbours; the others see the block from behind."""


def surface_of(voxels: np.ndarray) -> Surface:
    """Return the outermost planes of an array (Z, Y, X)."""
    return {(axis, end): np.take(voxels, -end, axis) for axis, end in SIDES}


def touching(surface: Surface, other: Surface, direction: Direction) -> np.ndarray:
    """Return the pairs of components that touch, (N, 2) uint32, of two blocks.

    Args:
        surface: Components of a block, 0 is background.
        other: Those of the block in this direction of it.
        direction: -1, 0 or 1 along z, y, x, not all 0.
    """
    mine, theirs = _part(surface, direction), _part(other, tuple(-d for d in direction))
    axis = _first_axis(direction)
    free = [d == 0 for a, d in enumerate(direction) if a != axis]
    pairs = [np.empty((0, 2), np.uint32)]
    for shift in itertools.product(*((-1, 0, 1) if is_free else (0,) for is_free in free)):
        here = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(shift, mine.shape, strict=True))
        there = tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(shift, mine.shape, strict=True))
        a, b = mine[here].ravel(), theirs[there].ravel()
        both = (a != 0) & (b != 0)
        packed = np.unique((a[both].astype(np.uint64) << np.uint64(32)) | b[both].astype(np.uint64))
        pairs.append(np.stack([packed >> np.uint64(32), packed & np.uint64(2**32 - 1)], axis=1).astype(np.uint32))
    return np.unique(np.concatenate(pairs), axis=0)


def neighbours(index: int, shape: Sequence[int], directions: Sequence[Direction]) -> Iterator[tuple[Direction, int]]:
    """Yield each direction in which a block has a neighbour in a grid, and the number of that block."""
    position = np.unravel_index(index, tuple(shape))
    for direction in directions:
        there = [int(p) + d for p, d in zip(position, direction, strict=True)]
        if all(0 <= p < n for p, n in zip(there, shape, strict=True)):
            yield direction, int(np.ravel_multi_index(there, tuple(shape)))


def beyond(side: Side) -> Direction:
    """Return the direction of the block beyond a side."""
    axis, end = side
    return tuple((2 * end - 1) * (a == axis) for a in range(3))  # type: ignore[return-value]


def write_faces(path: Path, faces: Mapping[Side, Face]) -> None:
    """Write the faces of a block atomically."""
    arrays = {
        f"{what}{axis}{end}": values
        for (axis, end), face in faces.items()
        for what, values in zip("kl", face, strict=True)
    }
    write_arrays(path, arrays)


def read_face(path: Path, side: Side) -> Face:
    """Return one face that `write_faces` wrote."""
    with np.load(path) as arrays:
        return arrays["k{}{}".format(*side)], arrays["l{}{}".format(*side)]


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays into one npz file atomically."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _first_axis(direction: Sequence[int]) -> int:
    return next(axis for axis, d in enumerate(direction) if d)


def _part(surface: Surface, direction: Sequence[int]) -> np.ndarray:
    """Return what of a surface looks in a direction: a plane, or its edge or corner, with the axes of the plane."""
    axis = _first_axis(direction)
    ends = {-1: slice(0, 1), 0: slice(None), 1: slice(-1, None)}
    rest = tuple(ends[d] for a, d in enumerate(direction) if a != axis)
    return np.asarray(surface[axis, int(direction[axis] > 0)][rest])
