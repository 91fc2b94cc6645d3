"""How a prediction is stored: chunks of about 64 voxels, in shards that hold the kept voxels of one tile each.

    tiles     |-----kept-----|-----kept-----|--kept--|
    shards    |--------------|--------------|--------------|     one file each: no two tiles write into the same one
    chunks    |----|----|----|----|----|----|----|----|----|     what is read at once

With `--tile original` tile starts can be irregular (the ROI starts inside a tile, or the last tile was shifted back).
Along such an axis a shard holds one chunk and several tiles write into it, so one worker processes all tiles along the
axis. Where outputs are blended, a shard is as wide as tiles advance, and one worker writes a row of them.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emsuite.blockwise.grid import BlockGrid
from emsuite.common.arrays import Shape
from emsuite.common.geometry import Coordinate, Roi
from emsuite.io.chunks import chunk_length, dividing_chunk_length
from emsuite.io.compression import Compression
from emsuite.io.volume import Volume, create_volume
from emsuite.prediction.blending import SHARDS_PER_ROW
from emsuite.prediction.predictor import Predictor
from emsuite.prediction.region import in_nm
from emsuite.prediction.tile_grid import BlockTiles, TileGrid


@dataclass(frozen=True)
class Layout:
    """Voxels per axis of a chunk, of a shard, and of the smallest part that one worker must write alone."""

    chunk: Shape
    shard: Shape
    exclusive: Shape


def make_layout(tiles: TileGrid, roi: Roi) -> Layout:
    """Return how the prediction of `roi` (voxels) by the tiles of a grid is stored."""
    axes = []
    for axis, n in enumerate(roi.shape):
        first = roi.begin[axis]
        axes.append(_along(sorted({keep - first for _, keep, _ in tiles.axes[axis]}), n))
    return Layout(*zip(*axes, strict=True))


def make_blended_layout(advance: Sequence[int], roi: Roi) -> Layout:
    """Return how a blended prediction of `roi` (voxels) is stored whose tiles advance by `advance` voxels."""
    axes = [_along(range(0, n, width), n) for width, n in zip(advance, roi.shape, strict=True)]
    return Layout(*zip(*axes, strict=True))


def _along(begins: Sequence[int], n: int) -> tuple[int, int, int]:
    """Return a `Layout` along one axis of `n` voxels, for the ascending first kept voxels of the tiles."""
    if len(begins) == 1:
        chunk = chunk_length(n)
        return chunk, -(-n // chunk) * chunk, n
    kept = begins[1]
    if list(begins) != list(range(0, n, kept)):
        return chunk_length(n), chunk_length(n), n
    return dividing_chunk_length(kept), kept, kept


@dataclass(frozen=True)
class BlockShare:
    """Blocks for workers, and the numbers of the tiles that each block is made from."""

    grid: BlockGrid
    tiles: BlockTiles


def share_out(tiles: TileGrid, layout: Layout, roi: Roi, raw: Volume, workers: int) -> BlockShare:
    """Return blocks that are rows of tiles along x, a few for each worker.

    With several tiles in a block, most tiles are read while the one before is computed.
    """
    along = -(-roi.shape[-1] // layout.exclusive[-1])
    row = max(1, min(along, len(tiles) // (4 * workers)))
    size = Coordinate((*layout.exclusive[:-1], layout.exclusive[-1] * row))
    grid = _block_grid(size, roi, raw)
    ranges = []
    for axis, begin, width, n in zip(tiles.axes, roi.begin, size, grid.shape, strict=True):
        first = np.searchsorted([keep for _, keep, _ in axis], begin + np.arange(n + 1) * width)
        ranges.append([range(int(low), int(high)) for low, high in itertools.pairwise(first)])
    return BlockShare(grid, BlockTiles(tiles.shape, ranges))


def share_rows(tiles: TileGrid, layout: Layout, roi: Roi, raw: Volume) -> BlockShare:
    """Return blocks that are rows of shards along x, for blended outputs; the tiles of a block in the order of sums.

    A tile at the border of several rows is in each of them. Rows do not depend on the number of workers.
    """
    size = [_even_width(n, shard) for n, shard in zip(roi.shape[:2], layout.exclusive[:2], strict=True)]
    grid = _block_grid(Coordinate((*size, roi.shape[2])), roi, raw)
    ranges = []
    for axis, begin, end, width, n in zip(
        tiles.axes, roi.begin, roi.end, (*size, roi.shape[2]), grid.shape, strict=True
    ):
        low = begin + np.arange(n) * width
        first = np.searchsorted([keep + length for _, keep, length in axis], low, side="right")
        last = np.searchsorted([keep for _, keep, _ in axis], np.minimum(low + width, end))
        ranges.append([range(int(f), int(e)) for f, e in zip(first, last, strict=True)])
    return BlockShare(grid, BlockTiles(tiles.shape, ranges, order=(2, 0, 1)))


def _even_width(n: int, shard: int) -> int:
    shards = -(-n // shard)
    return -(-shards // -(-shards // SHARDS_PER_ROW)) * shard


def _block_grid(size: Coordinate, roi: Roi, raw: Volume) -> BlockGrid:
    total = Roi(raw.offset + roi.offset * raw.voxel_size, roi.shape * raw.voxel_size)
    return BlockGrid(total, size * raw.voxel_size, size * 0)


def create_arrays(
    predictor: Predictor, raw: Volume, roi: Roi, paths: Mapping[str, Path], layout: Layout, compression: Compression
) -> dict[str, Volume]:
    """Create the array of each head for the prediction of `roi`, voxels of raw, at its path; return them by head."""
    offset, arrays = in_nm(raw, roi).offset, {}
    shards = None if layout.shard == layout.chunk else layout.shard
    for name, path in paths.items():
        head = predictor.config.heads[name]
        channels = (head.channels,)
        arrays[name] = create_volume(
            path,
            (*channels, *roi.shape),
            head.stored_as,
            raw.voxel_size,
            offset,
            (*channels, *layout.chunk),
            shards=shards and (*channels, *shards),
            compression=compression,
            **head.array_attributes(),
        )
    return arrays
