"""One axis of an image that a network predicts: where tiles lie, what each reads, and what comes out of it.

    image         0 ................................. n          mirrored behind it up to a legal size
    tiles         |-------------|                                outputs, `overlap` voxels in common
                             |-------------|
                                       |-------------|           the last one is moved inside
    read by one          [ - - |-------------| - - ]             with context, from a multiple of the stride on

Along an axis that the network pads, a tile reads no farther than the image: zeros stand around it as in training. Along
others, the image is mirrored. So each voxel comes out as in a whole pass, whatever the tiles.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from emsuite.models.receptive_field import receptive_field, smallest_input
from emsuite.models.unet_settings import UNetSettings
from emsuite.plates.tiles import tile_starts
from emsuite.prediction.blending import Window, weights_along


@dataclass(frozen=True)
class Piece:
    """A tile along one axis, voxels of the image that was padded by `Axis.around`."""

    begin: int
    end: int
    """What is read."""
    skipped: int
    """Voxels of the output before the tile."""
    start: int
    """Where the tile begins, in voxels of the image."""
    length: int


@dataclass(frozen=True)
class Axis:
    """The tiles along an axis."""

    around: tuple[int, int]
    """Voxels to mirror before and behind the image."""
    pieces: Sequence[Piece]


def make_axis(unet: UNetSettings, axis: int, length: int, tile: int | None, overlap: int) -> Axis:
    """Return the tiles of an image along an axis.

    Args:
        unet: the network.
        axis: 0 z, 1 y, 2 x.
        length: voxels of the image.
        tile: voxels of a tile's output; None, or at least `length`: one tile.
        overlap: voxels that neighbours have in common, fewer than `tile`.
    """
    size = length if tile is None else min(tile, length)
    starts = [0] if size == length else tile_starts(length, size, size - overlap)
    field = receptive_field(unet)
    stride, smallest, context = field.stride[axis], smallest_input(unet)[axis], field.context[axis]
    if unet.pads[axis]:
        whole = max(smallest, -(-length // stride) * stride)
        return Axis((0, whole - length), [_padded(start, size, whole, stride, context, smallest) for start in starts])
    rows = [_valid(start, size, stride, context, smallest) for start in starts]
    before, end = context // 2, max(row.end for row in rows)
    return Axis((before, max(0, end - before - length)), rows)


def _padded(start: int, size: int, whole: int, stride: int, context: int, smallest: int) -> Piece:
    begin = max(0, start - context // 2) // stride * stride
    end = min(whole, -(-(start + size + context // 2) // stride) * stride)
    begin = max(0, min(begin, end - smallest)) // stride * stride
    end = max(end, begin + smallest)
    return Piece(begin, end, start - begin, start, size)


def _valid(start: int, size: int, stride: int, context: int, smallest: int) -> Piece:
    # a tile begins with a multiple of the stride, where the pooling of a whole pass begins, too
    begin = start // stride * stride
    needed = start - begin + size + context
    end = begin + smallest + -(-max(0, needed - smallest) // stride) * stride
    return Piece(begin, end, start - begin, start, size)


def ramp(overlap: int) -> Window:
    """Return a window that rises over the overlap by 1 / (n + 1), ..., n / (n + 1), as microDL's blending does."""

    def window(width: int) -> np.ndarray:
        index = np.arange(width) + 1.0
        return np.minimum(1.0, np.minimum(index, width + 1.0 - index) / (overlap + 1.0))

    return window


def weights_of(axis: Axis, window: Window) -> dict[int, np.ndarray]:
    """Return the weights of each tile along an axis by its start; at each voxel they sum to one."""
    return weights_along([piece.start for piece in axis.pieces], axis.pieces[0].length, window)


Windows = Callable[[int], Window]
"""Returns the window for an overlap."""
