"""The grid of blocks that tile a volume: the region that each block writes, and the larger region that it reads.

context +- - - - - - - - +        The write regions tile the volume from its offset on. The last block along an axis
        |  +----------+  |        may be smaller. Read regions are cut at the faces of the volume.
           |  write   |
        |  +----------+  |        All regions and sizes are in nm, in world coordinates.
        + - - - - read - +
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate, Roi, on_grid
from emsuite.io.chunks import chunk_length, dividing_chunk_length
from emsuite.io.volume import Volume

MOST_BLOCKS = 10**9
"""Which of them are done is kept in memory."""


@dataclass(frozen=True)
class Block:
    """One block: its number in the grid (C order), and the regions that it writes and reads (nm)."""

    index: int
    write: Roi
    read: Roi


@dataclass(frozen=True)
class BlockGrid:
    """Blocks of `block_size` that tile `total` and read `context` on every side (all in nm), at most `MOST_BLOCKS`."""

    total: Roi
    block_size: Coordinate
    context: Coordinate

    def __post_init__(self) -> None:
        if (number := math.prod(self.shape)) > MOST_BLOCKS:
            raise BadInput(
                f"a region of {self.total.shape} nm is {number:.3g} blocks of {self.block_size} nm, expected at most "
                f"{MOST_BLOCKS:.0e}; its metadata announce too much, or its blocks are too small"
            )

    @property
    def shape(self) -> Coordinate:
        """The number of blocks per axis."""
        return Coordinate(-(-n // size) for n, size in zip(self.total.shape, self.block_size, strict=True))

    def __len__(self) -> int:
        return math.prod(self.shape)

    def __iter__(self) -> Iterator[Block]:
        return (self.block(index) for index in range(len(self)))

    def block(self, index: int) -> Block:
        """Return the block with this number."""
        position = Coordinate(int(n) for n in np.unravel_index(index, self.shape))
        write = Roi(self.total.offset + position * self.block_size, self.block_size).intersect(self.total)
        return Block(index, write, write.grow(self.context, self.context).intersect(self.total))

    def index_at(self, position: Sequence[int]) -> int:
        """Return the number of the block at a position, counted in blocks along each axis."""
        return int(np.ravel_multi_index(tuple(position), tuple(self.shape)))


def make_grid(volume: Volume, block_size: Sequence[int] | None, context: Sequence[int] | None) -> BlockGrid:
    """Return the grid of blocks over a volume.

    Args:
        volume: The volume to tile; only its ROI and its voxel size matter.
        block_size: In nm. None makes the whole volume one block, without context.
        context: In nm, read around each block. None makes it a quarter of the block, in whole voxels.

    Raises:
        BadInput: If a size is not a whole number of voxels.
    """
    whole, voxel_size = volume.roi, volume.voxel_size
    if block_size is None:
        return BlockGrid(whole, Coordinate(whole.shape), voxel_size * 0)
    size = _whole_voxels("block size", block_size, voxel_size, at_least=1)
    if context is None:
        margin = size // (voxel_size * 4) * voxel_size
    else:
        margin = _whole_voxels("context", context, voxel_size, at_least=0)
    size = Coordinate(min(s, n) for s, n in zip(size, whole.shape, strict=True))
    return BlockGrid(whole, size, margin)


def _whole_voxels(name: str, length: Sequence[int], voxel_size: Coordinate, at_least: int) -> Coordinate:
    given = Coordinate(length)
    near = on_grid(given, voxel_size) if given.dims == voxel_size.dims else given
    if near.dims != voxel_size.dims or any(near % voxel_size) or min(near) < at_least:
        raise BadInput(f"{name} {given} nm: expected multiples of the voxel size {voxel_size} nm")
    return near


def block_aligned_chunk_shape(grid: BlockGrid, voxel_size: Coordinate) -> list[int]:
    """Return a chunk shape in voxels such that no two blocks write into the same chunk; see `emsuite.io.chunks`."""
    if len(grid) == 1:
        return [chunk_length(n) for n in grid.total.shape / voxel_size]
    return [dividing_chunk_length(size) for size in grid.block_size / voxel_size]
