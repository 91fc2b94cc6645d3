"""The tiles of a prediction as the product of its axes: memory for the axes alone, however many tiles there are."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from emsuite.common.arrays import Shape

Along = tuple[int, int, int]
"""A tile along one axis: its first output voxel, the first voxel that is used, and how many voxels are used."""


@dataclass(frozen=True)
class Tile:
    """One tile: its first output voxel, and the voxels of its output that are used, all in voxels of the volume."""

    begin: Shape
    keep_begin: Shape
    keep_shape: Shape

    @property
    def kept_of_output(self) -> tuple[slice, ...]:
        """The kept voxels within the tile's `(C, Z, Y, X)` output."""
        rows = zip(self.begin, self.keep_begin, self.keep_shape, strict=True)
        return (slice(None), *(slice(k - b, k - b + n) for b, k, n in rows))


class TileGrid:
    """Tiles in z, y, x order. A tile is made when it is asked for."""

    def __init__(self, axes: Iterable[Sequence[Along]]):
        """Take the tiles along z, y and x, ascending."""
        self.axes = tuple(axes)

    @property
    def shape(self) -> Shape:
        """The number of tiles along z, y, x."""
        return tuple(map(len, self.axes))

    def __len__(self) -> int:
        return math.prod(self.shape)

    def __getitem__(self, number: int) -> Tile:
        rest, along = range(len(self))[number], []
        for axis in reversed(self.axes):
            rest, position = divmod(rest, len(axis))
            along.append(axis[position])
        return Tile(*zip(*reversed(along), strict=True))

    def __iter__(self) -> Iterator[Tile]:
        return (Tile(*zip(*along, strict=True)) for along in itertools.product(*self.axes))


class BlockTiles:
    """The numbers of the tiles of each block in a grid of blocks: the product of a range of tiles along each axis."""

    def __init__(self, tiles: Shape, ranges: Sequence[Sequence[range]], order: Shape = (0, 1, 2)):
        """Describe the tiles of blocks.

        Args:
            tiles: The number of tiles along z, y, x.
            ranges: For z, y and x: the tiles of each block along that axis.
            order: The axes along which the tiles of a block follow each other, the slowest first.
        """
        self._shape, self._ranges, self._order = tiles, ranges, order

    @property
    def total(self) -> int:
        """The number of tiles of all blocks together; a tile of several blocks counts for each."""
        return math.prod(sum(map(len, axis)) for axis in self._ranges)

    def __len__(self) -> int:
        return math.prod(map(len, self._ranges))

    def __iter__(self) -> Iterator["TileNumbers"]:
        return (self[block] for block in range(len(self)))

    def __getitem__(self, block: int) -> "TileNumbers":
        rest, within = range(len(self))[block], list[range]()
        for axis in reversed(self._ranges):
            rest, position = divmod(rest, len(axis))
            within.insert(0, axis[position])
        strides = [math.prod(self._shape[axis + 1 :]) for axis in range(len(self._shape))]
        return TileNumbers(tuple((within[axis], strides[axis]) for axis in self._order))


@dataclass(frozen=True)
class TileNumbers:
    """The numbers of the tiles of one block, in the order in which they are predicted."""

    axes: tuple[tuple[range, int], ...]
    """The tiles along each axis, the slowest first, and how far the numbers of two neighbours are apart."""

    def __len__(self) -> int:
        return math.prod(len(along) for along, _ in self.axes)

    def __iter__(self) -> Iterator[int]:
        return (
            sum(n * stride for n, (_, stride) in zip(position, self.axes, strict=True))
            for position in itertools.product(*(along for along, _ in self.axes))
        )

    @property
    def last(self) -> int:
        """The last one."""
        return sum(along[-1] * stride for along, stride in self.axes)
