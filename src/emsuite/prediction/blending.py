r"""Blending: tiles whose outputs overlap by half, and the windows that weigh them.

    outputs   |-----------|-----------|                 tiles advance by half their output, in strides of the network
                    |-----------|-----------|
    linear     weight 1  \/  ...  \/  weight 1          in an overlap one window falls while the other rises; where
                         /\       /\                    only one output lies, its weight is 1

Choose it where the output of a network depends on where its tile lies, as with normalisation within a tile: then
`crop` shows seams. To add a blending, write a function and put its name into `BLENDINGS`.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from emsuite.common.arrays import Shape
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Roi
from emsuite.config.training import Margin
from emsuite.models.receptive_field import ReceptiveField
from emsuite.prediction.tile_grid import Tile, TileGrid
from emsuite.prediction.tiling import BY_STRIDE, ByStride, Original, Tiling, Window, even_input_shape

logger = logging.getLogger(__name__)

SHARDS_PER_ROW = 4
"""The largest width, along z and y, of a row of blocks, in shards of half an output each, see `blended_rows.py`.

Tiles at the border of two rows are computed for each of them: with 4 shards 5/4 times as often along an axis.
"""


def linear(width: int) -> np.ndarray:
    """Return the weights of `width` voxels that rise linearly to the centre: two at half the width add up to 1."""
    index = np.arange(width) + 0.5
    return np.minimum(index, width - index) / (width / 2)


def gaussian(width: int) -> np.ndarray:
    """Return the weights of `width` voxels under a Gaussian, sigma an eighth of the width (Isensee et al. 2021)."""
    return np.exp(-0.5 * ((np.arange(width) - (width - 1) / 2) / (width / 8)) ** 2)


BLENDINGS: dict[str, Window] = {"linear": linear, "gaussian": gaussian}
"""The windows by name: functions of the width of an output along one axis, in voxels, to weights above 0."""


@dataclass(frozen=True)
class Blended(ByStride):
    """Tiles by the stride that overlap by half their output; a voxel is the weighted mean of all outputs there.

    Along an axis, an output of one stride does not overlap, and one of an odd number of strides overlaps by half a
    stride less. The first output begins with the last multiple of the stride that is not behind the ROI.
    """

    blend: str
    bytes_per_value = 8 * 1.5 * SHARDS_PER_ROW**2 / 4  # of the sums of a row: in outputs 2 x 2 x 1.5, float64

    @property
    def name(self) -> str:
        """See `Tiling.name`."""
        return f"stride, {self.blend}"

    @property
    def window(self) -> Window:
        """See `Tiling.window`."""
        return BLENDINGS[self.blend]

    def input_shape(self, receptive_field: ReceptiveField, largest: Sequence[int], roi: Roi) -> Shape:
        """See `even_input_shape`, for the ROI from the first output on."""
        rest = [first % stride for first, stride in zip(roi.begin, receptive_field.stride, strict=True)]
        begin = [first - r for first, r in zip(roi.begin, rest, strict=True)]
        return even_input_shape(receptive_field, largest, begin, [n + r for n, r in zip(roi.shape, rest, strict=True)])

    def advance(self, step: int, stride: int) -> int:
        """Return by how many voxels tiles of an output of `step` voxels advance along an axis."""
        return -(-step // (2 * stride)) * stride

    def starts(self, whole: range, roi: range, step: int, stride: int) -> Sequence[tuple[int, int]]:
        """See `Tiling.starts`. All voxels of an output are its own."""
        first, advance = roi.start // stride * stride, self.advance(step, stride)
        more = -(-max(0, roi.stop - first - step) // advance)
        return [(first + number * advance,) * 2 for number in range(more + 1)]

    def kept(self, starts: Sequence[tuple[int, int]], roi: range, step: int) -> Iterator[tuple[int, int, int]]:
        """See `Tiling.kept`: here all of each output that lies in the ROI."""
        for start, own in starts:
            yield start, max(own, roi.start), min(start + step, roi.stop)


def weights_along(begins: Iterable[int], width: int, window: Window) -> dict[int, np.ndarray]:
    """Return the weights of outputs along one axis: their windows, divided by the sum of all windows at each voxel.

    A grid is a product of its axes and a window one of its axes' windows. So is the sum of all windows, and the product
    of the weights along z, y and x is the weight of a voxel in a weighted mean.

    Args:
        begins: the first voxels of the outputs.
        width: their voxels.
        window: see `BLENDINGS`.

    Returns:
        `(width,)` float64 for each begin.
    """
    begins, weights = sorted(set(begins)), window(width)
    total = np.zeros(begins[-1] - begins[0] + width)
    for begin in begins:
        total[begin - begins[0] :][:width] += weights
    return {begin: weights / total[begin - begins[0] :][:width] for begin in begins}


def make_tiling(
    tile: str,
    valid: bool,
    blend: str | None,
    input_shape: Sequence[int] | None = None,
    margin: Margin = "half",
    is_local: bool = True,
) -> Tiling:
    """Return the tiling that the command line asks for.

    Args:
        tile: "stride" or "original".
        valid: whether only voxels with real context are predicted.
        blend: "crop" or a name of `BLENDINGS`; None: "crop", or "linear" for a network that is not local.
        input_shape: the largest tile, if the command line names one.
        is_local: whether the outputs of the network depend on the voxels around them alone, see `is_local`.
        margin: how much of its context the network's original left out on either side of a volume; where it is the
            whole, original tiles are valid ones.

    Raises:
        BadInput: original tiles with a blending, or with another input shape than the network's.
    """
    if blend == "crop" and not is_local:
        logger.warning("--blend crop: the network's values depend on the whole tile, there will be seams")
    blend = blend or ("crop" if is_local or tile == "original" else "linear")
    if tile == "original" and input_shape is not None:
        raise BadInput("--input-shape: original tiles are the network's own; leave out one of the two")
    if tile == "original" and blend != "crop":
        raise BadInput(f"--blend {blend}: original tiles do not overlap; leave out one of the two")
    if tile == "original":
        return Original(valid or margin == "whole", margin == "whole")
    return BY_STRIDE if blend == "crop" else Blended(blend)


class GridWeights:
    """The weights of all outputs of a blended grid."""

    def __init__(self, tiles: TileGrid, step: Shape, window: Window):
        begins = [[begin for begin, _, _ in axis] for axis in tiles.axes]
        self._axes = [weights_along(axis, n, window) for axis, n in zip(begins, step, strict=True)]

    def of(self, tile: Tile) -> np.ndarray:
        """Return the weights of the output of `tile`, `(Z, Y, X)` float64."""
        z, y, x = (weights[begin] for weights, begin in zip(self._axes, tile.begin, strict=True))
        return z[:, None, None] * y[:, None] * x
