"""Tiles of a prediction: where each begins, what it reads and which part of its output is used, in voxels.

By the network's stride (the default):

    roi          |<------ begin, shape ------>|
    kept         |---block---|---block---|----|         equally many voxels of each tile, which are stored together
    tiles     |----output----|                          each begins on the last multiple of the network's stride that is
                          |----output----|              not behind its block
    read   |<- offset ->|     |<- context - offset ->|  around each tile, reflected at the volume's border

As the original experiments did, in blocks of exactly the network's output:

    volume       |<------------------------->|
    blocks       |--output--|--output--|--output--|     from the first voxel on, the last one overhangs; zeros outside
    valid           |--output--|--out|--output--|       where there is real context: the last one is moved back
    tutorial            |--output--|--output--|         the same, with the whole context left out on either side

Grids by the stride of different tile sizes, and of parts of a volume, start at the same multiples of the stride: the
same voxel gets the same value from each of them. An original grid begins with the volume, whatever its ROI. Blended
grids, whose tiles overlap, are in `blending.py`.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from emsuite.common.arrays import Shape
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate, Roi
from emsuite.io.volume import Volume
from emsuite.models.receptive_field import ReceptiveField
from emsuite.prediction.tile.mirroring import mirrored, reflect
from emsuite.prediction.tile_grid import TileGrid

Window = Callable[[int], np.ndarray]
"""The weights above 0 of an output along one axis, `(width,)` float, for its width in voxels."""


class Tiling(ABC):
    """Where tiles lie, what lies outside the volume and how outputs become uint8. ROIs are in voxels."""

    stores_lsds: bool = False
    """Whether autocontext's LSDs are predicted on a grid of their own before the network that reads them runs."""

    truncates: bool = False
    """Whether `to_uint8` cuts fractions off."""

    valid: bool = False
    """Whether no voxel is predicted without real context."""

    bytes_per_value: float = 0
    """Memory for each value that a tile predicts, beside that of the network."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the tiling in the settings of a prediction."""

    @property
    def window(self) -> Window | None:
        """The weights of overlapping outputs. None: each voxel is kept from one tile alone."""
        return None

    @abstractmethod
    def input_shape(self, receptive_field: ReceptiveField, largest: Sequence[int], roi: Roi) -> Shape:
        """Return the input shape of tiles that predict `roi`, for the largest tile or the network's own."""

    @abstractmethod
    def step(self, receptive_field: ReceptiveField, input_shape: Sequence[int]) -> Shape:
        """Return the output of a tile of that input. Unless outputs overlap, tiles advance by as much."""

    def whole(self, receptive_field: ReceptiveField, volume: Roi) -> Roi:
        """Return the region of a volume that the grid is laid over, for the network that reads raw."""
        return volume

    def real_context(self, receptive_field: ReceptiveField, volume: Roi) -> Roi:
        """Return the part of a volume that has real context; voxels."""
        return Roi(
            volume.offset + Coordinate(receptive_field.offset), volume.shape - Coordinate(receptive_field.context)
        )

    def least(self, step: Shape) -> Shape:
        """Return the smallest region over which tiles of that step can be laid."""
        return (1,) * len(step)

    @abstractmethod
    def starts(self, whole: range, roi: range, step: int, stride: int) -> Sequence[tuple[int, int]]:
        """Return, along one axis, where each tile begins and the first voxel kept of it. The tiles cover `roi`."""

    def grid(self, receptive_field: ReceptiveField, input_shape: Sequence[int], whole: Roi, roi: Roi) -> TileGrid:
        """Return the tiles that cover `roi`, in z, y, x order."""
        step, axes = self.step(receptive_field, input_shape), []
        for axis, (width, stride) in enumerate(zip(step, receptive_field.stride, strict=True)):
            whole_range = range(whole.begin[axis], whole.end[axis])
            roi_range = range(roi.begin[axis], roi.end[axis])
            starts = self.starts(whole_range, roi_range, width, stride)
            axes.append([(start, low, high - low) for start, low, high in self.kept(starts, roi_range, width)])
        return TileGrid(axes)

    def kept(self, starts: Sequence[tuple[int, int]], roi: range, step: int) -> Iterator[tuple[int, int, int]]:
        """Yield, along one axis, each tile's start and the range that is used of it: here each voxel is kept once."""
        for (start, own), (_, following) in itertools.pairwise([*starts, (roi.stop, roi.stop)]):
            low, high = max(own, roi.start), min(following, roi.stop)
            if low < high:
                yield start, low, high

    @abstractmethod
    def read(self, volume: Volume, begin: Sequence[int], shape: Sequence[int]) -> np.ndarray:
        """Read `shape` voxels of `volume` from voxel `begin`, which may lie outside it."""

    @abstractmethod
    def to_uint8(self, scaled: Tensor) -> Tensor:
        """Return floats in [0, 255] as whole numbers, in the same memory."""


class ByStride(Tiling):
    """Tiles that meet without a seam: steps of the network's stride, mirrored context, values rounded."""

    @property
    def name(self) -> str:
        """See `Tiling.name`."""
        return "stride"

    def input_shape(self, receptive_field: ReceptiveField, largest: Sequence[int], roi: Roi) -> Shape:
        """See `even_input_shape`."""
        return even_input_shape(receptive_field, largest, roi.begin, roi.shape)

    def step(self, receptive_field: ReceptiveField, input_shape: Sequence[int]) -> Shape:
        """Return the largest multiple of the stride that comes out right."""
        return receptive_field.step(input_shape)

    def starts(self, whole: range, roi: range, step: int, stride: int) -> Sequence[tuple[int, int]]:
        """Blocks begin with the ROI. Where a tile yields only one stride, blocks end with its output instead."""
        block = _block(roi.start, len(roi), stride, step)
        if block == 0:
            return [(start, start) for start in range(roi.start // stride * stride, roi.stop, step)]
        return [(own // stride * stride, own) for own in range(roi.start, roi.stop, block)]

    def read(self, volume: Volume, begin: Sequence[int], shape: Sequence[int]) -> np.ndarray:
        """See `read_reflected`."""
        return read_reflected(volume, begin, shape)

    def to_uint8(self, scaled: Tensor) -> Tensor:
        """Round."""
        return scaled.round_()


@dataclass(frozen=True)
class Original(Tiling):
    """The original experiments' tiles: blocks of the network's output, zeros outside the volume, values truncated.

    Blocks begin with the volume and overhang its end (funkelab/lsd, 01_predict_blockwise.py). Where `valid`, they begin
    with the first voxel that has real context, and the last one is moved back to end with the last such voxel. Voxels
    of two blocks come from the later one (funkelab/lsd_nm_experiments, predict_scan.py; gunpowder's Scan). gunpowder's
    CREMI tutorial leaves out the `whole_context` on either side, where half of it would do.
    """

    valid: bool = False
    whole_context: bool = False
    stores_lsds = True
    truncates = True

    @property
    def name(self) -> str:
        """The kinds have names of their own, since they yield different bytes for the same region."""
        kind = ", valid" if self.valid else ""
        return f"original{kind}{', whole context' if self.whole_context else ''}"

    def input_shape(self, receptive_field: ReceptiveField, largest: Sequence[int], roi: Roi) -> Shape:
        """Return `largest` as it is; raise BadInput if the network cannot read it."""
        fitting = receptive_field.largest_within(largest)
        if fitting != tuple(largest):
            raise BadInput(
                f"prediction.input_shape: {tuple(largest)} does not fit the network, original tiles need one that "
                f"does; the next is {fitting} (steps of {receptive_field.stride})"
            )
        return fitting

    def step(self, receptive_field: ReceptiveField, input_shape: Sequence[int]) -> Shape:
        """Return the whole output."""
        return tuple(n - c for n, c in zip(input_shape, receptive_field.context, strict=True))

    def whole(self, receptive_field: ReceptiveField, volume: Roi) -> Roi:
        """Return the volume, or the part of it that has real context."""
        return self.real_context(receptive_field, volume) if self.valid else volume

    def real_context(self, receptive_field: ReceptiveField, volume: Roi) -> Roi:
        """See `Tiling.real_context`; less of it where the whole context is left out on either side."""
        if not self.whole_context:
            return super().real_context(receptive_field, volume)
        context = Coordinate(receptive_field.context)
        return Roi(volume.offset + context, volume.shape - context * 2)

    def least(self, step: Shape) -> Shape:
        """Return the step where a tile must not overhang."""
        return step if self.valid else super().least(step)

    def starts(self, whole: range, roi: range, step: int, stride: int) -> Sequence[tuple[int, int]]:
        """All blocks of the whole volume, whatever the ROI."""
        last = whole.stop - step if self.valid else whole.stop
        starts = [*range(whole.start, last, step), *([last] if self.valid else [])]
        return [(start, start) for start in starts]

    def read(self, volume: Volume, begin: Sequence[int], shape: Sequence[int]) -> np.ndarray:
        """See `read_with_zeros`."""
        return read_with_zeros(volume, begin, shape)

    def to_uint8(self, scaled: Tensor) -> Tensor:
        """Truncate, as NumPy's conversion does."""
        return scaled.floor_()


BY_STRIDE = ByStride()


def even_input_shape(
    receptive_field: ReceptiveField, largest: Sequence[int], begin: Sequence[int], shape: Sequence[int]
) -> Shape:
    """Return the input shape that covers `shape` voxels from `begin` with the fewest tiles, as small as possible.

    No axis is larger than `largest`, unless a tile that small yields less than one stride.
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
    """Return how many of `n` voxels from `first` on are kept of a tile that yields `step`: all, or whole strides."""
    rest = first % stride
    return n if rest + n <= step else step - (stride if rest else 0)


def tile_within(
    receptive_field: ReceptiveField, largest: Sequence[int], voxels: float, begin: Sequence[int], shape: Sequence[int]
) -> Shape:
    """Return the cheapest input shape of at most `voxels` voxels for an even grid over `shape` from `begin`.

    The cost of a shape is the number of voxels that all its tiles read together. No axis is larger than `largest`. If
    even the smallest tile is too large, return that one.
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
    """Read `shape` voxels of a `(Z, Y, X)` volume from voxel `begin`. Outside it, mirror it without repeating the edge.

    Only voxels that are needed are read, however far outside `begin` lies.
    """
    indices = [reflect(np.arange(b, b + n), size) for b, n, size in zip(begin, shape, volume.shape, strict=True)]
    first, end = (Coordinate(bound) for bound in zip(*((i.min(), i.max() + 1) for i in indices), strict=True))
    voxels = volume.read(Roi(volume.offset + first * volume.voxel_size, (end - first) * volume.voxel_size))
    return mirrored(voxels, [index - start for index, start in zip(indices, first, strict=True)])


def read_with_zeros(volume: Volume, begin: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """Read `shape` voxels, all channels, of a volume from voxel `begin`. Outside the volume they are 0."""
    roi_vx = Roi(begin, shape)
    inside = roi_vx.intersect(Roi(roi_vx.offset * 0, volume.spatial_shape))
    within = inside - roi_vx.offset
    channels = () if volume.channels is None else (volume.channels,)
    voxels = np.zeros((*channels, *shape), volume.dtype)
    inside_nm = Roi(volume.offset + inside.offset * volume.voxel_size, inside.shape * volume.voxel_size)
    index: Any = (..., *(slice(b, e) for b, e in zip(within.begin, within.end, strict=True)))
    voxels[index] = volume.read(inside_nm)
    return voxels
