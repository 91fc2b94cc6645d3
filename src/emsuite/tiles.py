"""Tiles of a prediction: where each begins, what it reads and which part of its output is kept, in voxels.

    grid      |---step---|---step---|---step---|        begins on multiples of the network's stride
    wanted       |<------ begin, shape ------>|
    kept         |-------|----------|---------|         the tiles' outputs, cut to what is wanted
    read   |<- offset ->|     |<- context - offset ->|  around each tile, reflected at the volume's border

Grids of different tile sizes, and of parts of a volume, start at the same multiples of the stride: the same voxel
gets the same value from each of them.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from funlib.geometry import Coordinate, Roi

from emsuite.geometry import Reach
from emsuite.unet import Shape
from emsuite.volume import Volume


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


def even_input_shape(reach: Reach, largest: Sequence[int], begin: Sequence[int], shape: Sequence[int]) -> Shape:
    """The input shape, no larger than `largest`, that covers `shape` in as few tiles, as small as they can be."""
    step = reach.step(reach.largest_within(largest))
    outputs = []
    for first, n, stride, width in zip(begin, shape, reach.stride, step, strict=True):
        extent = n + first % stride
        count = -(-extent // width)
        outputs.append(-(-extent // (count * stride)) * stride)
    return reach.input_for(outputs)


def grid(reach: Reach, input_shape: Sequence[int], begin: Sequence[int], shape: Sequence[int]) -> Iterator[Tile]:
    """The tiles that cover `shape` voxels from `begin`, in z, y, x order."""
    step = reach.step(input_shape)
    starts = []
    for first, n, stride, width in zip(begin, shape, reach.stride, step, strict=True):
        starts.append(range(first // stride * stride, first + n, width))
    for corner in itertools.product(*starts):
        rows = list(zip(corner, begin, shape, step, strict=True))
        low = tuple(max(c, b) for c, b, _, _ in rows)
        high = tuple(min(c + w, b + n) for c, b, n, w in rows)
        yield Tile(corner, low, tuple(h - b for h, b in zip(high, low, strict=True)))


def read_reflected(volume: Volume, begin: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """`shape` voxels of a `(Z, Y, X)` volume from voxel `begin`; outside it the volume is mirrored, edge not repeated.

    Reads the part of the volume that is needed and no more, however far outside `begin` lies.
    """
    indices = [_reflect(np.arange(b, b + n), size) for b, n, size in zip(begin, shape, volume.shape, strict=True)]
    first, end = (Coordinate(bound) for bound in zip(*((i.min(), i.max() + 1) for i in indices), strict=True))
    voxels = volume.read(Roi(volume.offset + first * volume.voxel_size, (end - first) * volume.voxel_size))
    return voxels[np.ix_(*(index - low for index, low in zip(indices, first, strict=True)))]


def _reflect(index: np.ndarray, size: int) -> np.ndarray:
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    folded = np.abs(index) % period
    return np.minimum(folded, period - folded)
