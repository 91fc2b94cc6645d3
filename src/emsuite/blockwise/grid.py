"""The blocks that tile a volume: what each writes, and what it reads around that.

context +- - - - - - - - +        a block reads `read` and writes `write`; the writes tile the volume from its
        |  +----------+  |        offset on, the last ones along an axis may be smaller; reads are cut where the
           |  write   |           volume ends
        |  +----------+  |
        + - - - - read - +
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from funlib.geometry import Coordinate, Roi

from emsuite.common.errors import BadInput
from emsuite.io.chunks import chunk_length, dividing_chunk_length
from emsuite.io.volume import Volume


@dataclass(frozen=True)
class Block:
    """One block: its number in the grid (C order), what it writes and what it reads (nm)."""

    index: int
    write: Roi
    read: Roi


@dataclass(frozen=True)
class BlockGrid:
    """Blocks of `block_size`, with `context` on every side, over `total` (all nm)."""

    total: Roi
    block_size: Coordinate
    context: Coordinate

    @property
    def shape(self) -> Coordinate:
        """Number of blocks per axis."""
        return Coordinate(-(-n // size) for n, size in zip(self.total.shape, self.block_size, strict=True))

    def __len__(self) -> int:
        return int(np.prod(self.shape))

    def __iter__(self) -> Iterator[Block]:
        return (self.block(index) for index in range(len(self)))

    def block(self, index: int) -> Block:
        """The block of that number."""
        place = Coordinate(int(n) for n in np.unravel_index(index, self.shape))
        write = Roi(self.total.offset + place * self.block_size, self.block_size).intersect(self.total)
        return Block(index, write, write.grow(self.context, self.context).intersect(self.total))

    def index_at(self, begin: Sequence[int]) -> int:
        """The number of the block whose write ROI begins at `begin`."""
        place = (Coordinate(begin) - self.total.offset) / self.block_size
        return int(np.ravel_multi_index(tuple(place), tuple(self.shape)))


def make_grid(volume: Volume, block_size: Sequence[int] | None, context: Sequence[int] | None) -> BlockGrid:
    """The grid over `volume` for a block size and a context in nm.

    Without a block size the volume is one block; without a context it is a quarter of the block. Raises BadInput for
    sizes that are no whole number of voxels.
    """
    whole, voxel = volume.roi, volume.voxel_size
    if block_size is None:
        return BlockGrid(whole, Coordinate(whole.shape), voxel * 0)
    size = _whole_voxels("block size", block_size, voxel, at_least=1)
    around = size / (voxel * 4) * voxel if context is None else _whole_voxels("context", context, voxel, at_least=0)
    size = Coordinate(min(s, n) for s, n in zip(size, whole.shape, strict=True))
    return BlockGrid(whole, size, around)


def _whole_voxels(name: str, length: Sequence[int], voxel: Coordinate, at_least: int) -> Coordinate:
    fits = len(length) == voxel.dims and all(n % v == 0 and n >= at_least for n, v in zip(length, voxel, strict=True))
    if not fits:
        raise BadInput(f"{name} {tuple(length)} nm: expected multiples of the voxel size {tuple(voxel)} nm")
    return Coordinate(length)


def chunk_shape(grid: BlockGrid, voxel_size: Coordinate) -> list[int]:
    """Chunks in voxels, of which every block is made: no two blocks write into the same chunk."""
    if len(grid) == 1:
        return [chunk_length(n) for n in grid.total.shape / voxel_size]
    return [dividing_chunk_length(size) for size in grid.block_size / voxel_size]
