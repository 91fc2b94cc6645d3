"""Tiles of a prediction: where each begins, what it reads and which part of its output is kept, in voxels.

By the network's stride (the default):

    wanted       |<------ begin, shape ------>|
    kept         |---block---|---block---|----|         as many voxels of each tile, which are stored together
    tiles     |----output----|                          each begins on the last multiple of the network's stride that is
                          |----output----|              not behind its block
    read   |<- offset ->|     |<- context - offset ->|  around each tile, reflected at the volume's border

As the originals did, in blocks of exactly the network's output:

    volume       |<------------------------->|
    blocks       |--output--|--output--|--output--|     from the first voxel on, the last one overhangs; zeros outside
    valid           |--output--|--out|--output--|       where there is real context: the last one is moved back

Grids by the stride of different tile sizes, and of parts of a volume, start at the same multiples of the stride: the
same voxel gets the same value from each of them. An original grid begins with the volume, whatever part is wanted.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from funlib.geometry import Coordinate, Roi
from torch import Tensor

from emsuite.common.arrays import Shape
from emsuite.common.errors import BadInput
from emsuite.io.volume import Volume
from emsuite.models.receptive_field import ReceptiveField


@dataclass(frozen=True)
class Tile:
    """One tile: `begin` its first output voxel, `keep_begin` and `keep_shape` the voxels kept, all in the volume's."""

    begin: Shape
    keep_begin: Shape
    keep_shape: Shape

    @property
    def kept_of_output(self) -> tuple[slice, ...]:
        """The kept voxels within the tile's `(C, Z, Y, X)` output."""
        rows = zip(self.begin, self.keep_begin, self.keep_shape, strict=True)
        return (slice(None), *(slice(k - b, k - b + n) for b, k, n in rows))


class Tiling(ABC):
    """Where tiles begin, what lies outside the volume and how probabilities become uint8; Rois are in voxels."""

    stores_lsds: bool
    """Whether autocontext's LSDs are predicted on a grid of their own before the network that reads them runs."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What stands for it in the settings of a prediction."""

    @abstractmethod
    def input_shape(self, receptive_field: ReceptiveField, given: Sequence[int], wanted: Roi) -> Shape:
        """What a tile reads to predict `wanted`, `given` the largest tile or the network's own."""

    @abstractmethod
    def step(self, receptive_field: ReceptiveField, input_shape: Sequence[int]) -> Shape:
        """What a tile of that input yields, and by how much tiles advance."""

    def whole(self, receptive_field: ReceptiveField, volume: Roi) -> Roi:
        """What of a volume the grid is laid over; `receptive_field` that of the network which reads raw."""
        return volume

    def least(self, step: Shape) -> Shape:
        """The smallest region over which tiles of that step can be laid."""
        return (1,) * len(step)

    @abstractmethod
    def starts(self, whole: range, wanted: range, step: int, stride: int) -> Sequence[tuple[int, int]]:
        """Where the tiles that cover `wanted`, or more, begin along one axis, and from where on voxels are theirs."""

    def grid(
        self, receptive_field: ReceptiveField, input_shape: Sequence[int], whole: Roi, wanted: Roi
    ) -> Iterator[Tile]:
        """The tiles that cover `wanted`, in z, y, x order; each voxel is kept once."""
        step, axes = self.step(receptive_field, input_shape), []
        for axis, (width, stride) in enumerate(zip(step, receptive_field.stride, strict=True)):
            first, last = range(whole.begin[axis], whole.end[axis]), range(wanted.begin[axis], wanted.end[axis])
            starts = self.starts(first, last, width, stride)
            kept = [
                (start, max(own, last.start), min(following, last.stop))
                for (start, own), (_, following) in itertools.pairwise([*starts, (last.stop, last.stop)])
            ]
            axes.append([(start, low, high - low) for start, low, high in kept if low < high])
        for tile in itertools.product(*axes):
            yield Tile(*zip(*tile, strict=True))

    @abstractmethod
    def read(self, volume: Volume, begin: Sequence[int], shape: Sequence[int]) -> np.ndarray:
        """`shape` voxels of `volume` from voxel `begin`, which may lie outside it."""

    @abstractmethod
    def to_uint8(self, scaled: Tensor) -> Tensor:
        """Whole numbers for floats in [0, 255]."""


class ByStride(Tiling):
    """Tiles that meet without a seam: steps of the network's stride, mirrored context, values rounded."""

    stores_lsds = False

    @property
    def name(self) -> str:
        """See `Tiling.name`."""
        return "stride"

    def input_shape(self, receptive_field: ReceptiveField, given: Sequence[int], wanted: Roi) -> Shape:
        """See `even_input_shape`; `given` is the largest."""
        return even_input_shape(receptive_field, given, wanted.begin, wanted.shape)

    def step(self, receptive_field: ReceptiveField, input_shape: Sequence[int]) -> Shape:
        """The largest multiple of the stride that comes out right."""
        return receptive_field.step(input_shape)

    def starts(self, whole: range, wanted: range, step: int, stride: int) -> Sequence[tuple[int, int]]:
        """Blocks from what is wanted on; where a tile yields but one stride, they end with its output instead."""
        block = _block(wanted.start, len(wanted), stride, step)
        if block == 0:
            return [(start, start) for start in range(wanted.start // stride * stride, wanted.stop, step)]
        return [(own // stride * stride, own) for own in range(wanted.start, wanted.stop, block)]

    def read(self, volume: Volume, begin: Sequence[int], shape: Sequence[int]) -> np.ndarray:
        """See `read_reflected`."""
        return read_reflected(volume, begin, shape)

    def to_uint8(self, scaled: Tensor) -> Tensor:
        """Rounded."""
        return scaled.round()


@dataclass(frozen=True)
class Original(Tiling):
    """The original experiments' tiles: blocks of the network's output, zeros outside the volume, values truncated.

    Blocks begin with the volume and overhang its end (funkelab/lsd, 01_predict_blockwise.py); where `valid`, they begin
    with the first voxel that has real context and the last one is moved back to end with the last such voxel, what two
    have in common coming from the later one (funkelab/lsd_nm_experiments, predict_scan.py; gunpowder's Scan).
    """

    valid: bool = False
    stores_lsds = True

    @property
    def name(self) -> str:
        """Both kinds by name: they yield other bytes for the same region."""
        return "original, valid" if self.valid else "original"

    def input_shape(self, receptive_field: ReceptiveField, given: Sequence[int], wanted: Roi) -> Shape:
        """`given`, as it is; raises BadInput if the network cannot read it."""
        if receptive_field.largest_within(given) != tuple(given):
            raise BadInput(
                f"prediction.input_shape: {tuple(given)} does not fit the network, original tiles need one that does; "
                f"the next is {receptive_field.largest_within(given)} (steps of {receptive_field.stride})"
            )
        return tuple(given)

    def step(self, receptive_field: ReceptiveField, input_shape: Sequence[int]) -> Shape:
        """The whole output."""
        return tuple(n - c for n, c in zip(input_shape, receptive_field.context, strict=True))

    def whole(self, receptive_field: ReceptiveField, volume: Roi) -> Roi:
        """The volume, or what of it has real context."""
        if not self.valid:
            return volume
        return Roi(
            volume.offset + Coordinate(receptive_field.offset), volume.shape - Coordinate(receptive_field.context)
        )

    def least(self, step: Shape) -> Shape:
        """A tile must fit where it may not overhang."""
        return step if self.valid else super().least(step)

    def starts(self, whole: range, wanted: range, step: int, stride: int) -> Sequence[tuple[int, int]]:
        """The whole grid's, whatever is wanted of it."""
        last = whole.stop - step if self.valid else whole.stop
        starts = [*range(whole.start, last, step), *([last] if self.valid else [])]
        return [(start, start) for start in starts]

    def read(self, volume: Volume, begin: Sequence[int], shape: Sequence[int]) -> np.ndarray:
        """See `read_with_zeros`."""
        return read_with_zeros(volume, begin, shape)

    def to_uint8(self, scaled: Tensor) -> Tensor:
        """Truncated, as by NumPy's conversion."""
        return scaled.floor()


BY_STRIDE = ByStride()


def even_input_shape(
    receptive_field: ReceptiveField, largest: Sequence[int], begin: Sequence[int], shape: Sequence[int]
) -> Shape:
    """The input shape that covers `shape` in as few tiles, as small as they can be.

    No larger than `largest`, unless nothing that small comes out as a whole stride.
    """
    smallest = receptive_field.input_for(receptive_field.stride)
    step = receptive_field.step(
        receptive_field.largest_within([max(pair) for pair in zip(largest, smallest, strict=True)])
    )
    outputs = []
    for first, n, stride, width in zip(begin, shape, receptive_field.stride, step, strict=True):
        block = _block(first, n, stride, width)
        spare = first % stride if block == n else width - block  # blocks that begin within a stride need one more
        count = -(-n // block) if block else 1
        even = n if block == n else -(-n // (count * stride)) * stride
        outputs.append(-(-(even + spare) // stride) * stride if block else width)
    return receptive_field.input_for(outputs)


def _block(first: int, n: int, stride: int, step: int) -> int:
    """How many of `n` voxels from `first` on are kept of a tile that yields `step`: all, or whole strides."""
    rest = first % stride
    return n if rest + n <= step else step - (stride if rest else 0)


def tile_within(
    receptive_field: ReceptiveField, largest: Sequence[int], voxels: float, begin: Sequence[int], shape: Sequence[int]
) -> Shape:
    """The largest tile for which an even grid over `shape` reads no more than `voxels` at once, at the least cost.

    Cost is what all tiles read together. No larger than `largest`; if even the smallest tile is too large, that one.
    """

    def even(limit: Shape) -> Shape:
        return even_input_shape(receptive_field, limit, begin, shape)

    def cost(tile: Shape) -> int:
        return math.prod(tile) * math.prod(
            -(-n // width) for n, width in zip(shape, receptive_field.step(tile), strict=True)
        )

    tile = even(tuple(largest))
    while math.prod(tile) > voxels:
        narrower = [even((*tile[:axis], tile[axis] - 1, *tile[axis + 1 :])) for axis in range(len(tile))]
        narrower = [other for other in narrower if math.prod(other) < math.prod(tile)]
        if not narrower:
            break
        tile = min(narrower, key=cost)
    return tile


def read_reflected(volume: Volume, begin: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """`shape` voxels of a `(Z, Y, X)` volume from voxel `begin`; outside it the volume is mirrored, edge not repeated.

    Reads the part of the volume that is needed and no more, however far outside `begin` lies.
    """
    indices = [_reflect(np.arange(b, b + n), size) for b, n, size in zip(begin, shape, volume.shape, strict=True)]
    first, end = (Coordinate(bound) for bound in zip(*((i.min(), i.max() + 1) for i in indices), strict=True))
    voxels = volume.read(Roi(volume.offset + first * volume.voxel_size, (end - first) * volume.voxel_size))
    for axis in reversed(range(3)):  # x first, while there is least to copy; several times as fast as np.ix_
        voxels = voxels.take(indices[axis] - first[axis], axis)
    return voxels


def read_with_zeros(volume: Volume, begin: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """`shape` voxels, all channels, of a volume from voxel `begin`; 0 outside it. Reads what lies inside alone."""
    wanted = Roi(begin, shape)
    inside = wanted.intersect(Roi(wanted.offset * 0, volume.spatial_shape))
    within = inside - wanted.offset
    channels = () if volume.channels is None else (volume.channels,)
    voxels = np.zeros((*channels, *shape), volume.dtype)
    place = Roi(volume.offset + inside.offset * volume.voxel_size, inside.shape * volume.voxel_size)
    index: Any = (..., *(slice(b, e) for b, e in zip(within.begin, within.end, strict=True)))
    voxels[index] = volume.read(place)
    return voxels


def _reflect(index: np.ndarray, size: int) -> np.ndarray:
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    folded = np.abs(index) % period
    return np.minimum(folded, period - folded)
