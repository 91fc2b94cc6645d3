"""How a prediction is stored: chunks of about 64 voxels, in shards that hold the kept voxels of one tile each.

    tiles     |-----kept-----|-----kept-----|--kept--|
    shards    |--------------|--------------|--------------|     one file each: no two tiles write into the same one
    chunks    |----|----|----|----|----|----|----|----|----|     what is read at once

Original tiles need not be regular: where a part of the volume begins within one, or the last one was moved back. Along
such an axis shards are chunks, tiles share them, and one worker writes them all, one tile after the other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from funlib.geometry import Coordinate, Roi

from emsuite.blockwise.grid import BlockGrid
from emsuite.common.arrays import Shape
from emsuite.io.volume import Volume
from emsuite.prediction.tiling import Tile

_CHUNK = 64


@dataclass(frozen=True)
class Layout:
    """Voxels per axis of a chunk, of a shard, and of what one worker must write alone."""

    chunk: Shape
    shard: Shape
    alone: Shape


def make_layout(tiles: Sequence[Tile], wanted: Roi) -> Layout:
    """How the prediction of `wanted` (voxels) by the tiles of a grid is stored."""
    axes = []
    for axis, n in enumerate(wanted.shape):
        first = wanted.begin[axis]
        axes.append(_along(sorted({tile.keep_begin[axis] - first for tile in tiles}), n))
    return Layout(*zip(*axes, strict=True))


def _along(begins: Sequence[int], n: int) -> tuple[int, int, int]:
    """A `Layout` along one axis of `n` voxels, `begins` being where what is kept of each tile begins, ascending."""
    if len(begins) == 1:
        chunk = min(_CHUNK, n)
        return chunk, -(-n // chunk) * chunk, n
    kept = begins[1]
    if list(begins) != list(range(0, n, kept)):
        return min(_CHUNK, n), min(_CHUNK, n), n
    divisors = (d for d in range(1, kept + 1) if kept % d == 0)
    return min(divisors, key=lambda d: abs(math.log(d / _CHUNK))), kept, kept


@dataclass(frozen=True)
class Share:
    """Blocks for workers, of several tiles each, and the numbers of the tiles in each block."""

    grid: BlockGrid
    tiles: tuple[tuple[int, ...], ...]


def share_out(tiles: Sequence[Tile], layout: Layout, wanted: Roi, raw: Volume, workers: int) -> Share:
    """Rows of tiles along x, a few for each worker, so that most tiles are read while the one before is computed."""
    along = -(-wanted.shape[-1] // layout.alone[-1])
    row = max(1, min(along, len(tiles) // (4 * workers)))
    size = Coordinate((*layout.alone[:-1], layout.alone[-1] * row))
    total = Roi(raw.offset + wanted.offset * raw.voxel_size, wanted.shape * raw.voxel_size)
    grid = BlockGrid(total, size * raw.voxel_size, size * 0)
    held: list[list[int]] = [[] for _ in range(len(grid))]
    for number, tile in enumerate(tiles):
        place = [(k - b) // s for k, b, s in zip(tile.keep_begin, wanted.begin, size, strict=True)]
        held[int(np.ravel_multi_index(place, tuple(grid.shape)))].append(number)
    return Share(grid, tuple(map(tuple, held)))
