"""The prediction of one volume of a plate: whole, or tile by tile with blending; mean over turned and mirrored copies.

image (C, Z, Y, X)  ->  each copy  ->  tiles  ->  network  ->  weighted sum  ->  turned back  ->  mean, variance
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from emsuite.common.device import Precision, computing_in
from emsuite.common.errors import BadInput
from emsuite.data.images.scales import measured
from emsuite.models.network import Network
from emsuite.prediction.blending import gaussian
from emsuite.prediction.plate.axes import Piece, Windows, make_axis, ramp, weights_of
from emsuite.targets.heads import ImageHead

WINDOWS: dict[str, Windows] = {"linear": ramp, "gaussian": lambda _: gaussian}
"""The windows of tiles that overlap, by name."""
COPIES: dict[str, Sequence[tuple[int, bool]]] = {
    "none": [(0, False)],
    "flips": [(0, False), (0, True), (2, False), (2, True)],
    "rotations": [(turns, is_mirrored) for is_mirrored in (False, True) for turns in range(4)],
}
"""Quarter turns in y and x, and whether x was mirrored before, of the copies that a prediction is the mean of."""


@dataclass(frozen=True)
class Tiles:
    """How images are cut: voxels of a tile and of the overlap, z, y, x; None: images are predicted whole."""

    shape: tuple[int, int, int] | None = None
    overlap: tuple[int, int, int] = (0, 0, 0)
    blend: str = "linear"


WHOLE = Tiles()


@dataclass(frozen=True)
class ImagePredictor:
    """A trained network on a device, and how it predicts images."""

    network: Network
    heads: dict[str, ImageHead]
    """Those that are written."""
    device: torch.device
    precision: Precision = "float32"
    tiles: Tiles = WHOLE
    copies: str = "none"
    measures: tuple[str, tuple[float, float]] | None = None
    """Method and percentiles, if each tile is normalized by its own statistics."""

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and variance over the copies.

        Args:
            image: (C, Z, Y, X) float32, normalized; grey values, if tiles measure themselves.

        Returns:
            two arrays (T, Z, Y, X) float32, the channels of all heads, in the range that the network predicts.
        """
        mean = squares = np.zeros(())
        for number, (turns, is_mirrored) in enumerate(COPIES[self.copies], start=1):
            copy = np.rot90(image[..., ::-1] if is_mirrored else image, turns, (2, 3))
            back = np.rot90(self._predict(np.ascontiguousarray(copy)), -turns, (2, 3))
            values = back[..., ::-1] if is_mirrored else back
            apart = values - mean  # Welford 1962
            mean = mean + apart / number
            squares = squares + apart * (values - mean)
        return mean.astype(np.float32), (squares / len(COPIES[self.copies])).astype(np.float32)

    def _predict(self, image: np.ndarray) -> np.ndarray:
        """Return the prediction of one copy, (T, Z, Y, X) float64."""
        unet, tiles = self.network.settings, self.tiles
        shapes = tiles.shape or (None, None, None)
        axes = [
            make_axis(unet, number, *row)
            for number, row in enumerate(zip(image.shape[1:], shapes, tiles.overlap, strict=True))
        ]
        padded = np.pad(image, [(0, 0), *(axis.around for axis in axes)], mode="reflect")
        total = np.zeros((sum(head.channels for head in self.heads.values()), *image.shape[1:]))
        windows = [weights_of(axis, WINDOWS[tiles.blend](n)) for axis, n in zip(axes, tiles.overlap, strict=True)]
        for pieces in itertools.product(*(axis.pieces for axis in axes)):
            z, y, x = (weights[piece.start] for weights, piece in zip(windows, pieces, strict=True))
            at = tuple(slice(piece.start, piece.start + piece.length) for piece in pieces)
            total[:, *at] += self._tile(padded, pieces) * (z[:, None, None] * y[:, None] * x)
        return total

    def _tile(self, padded: np.ndarray, pieces: Sequence[Piece]) -> np.ndarray:
        """Return the output of a tile, (T, Z, Y, X) float32."""
        values = self.pass_through(padded[:, *(slice(piece.begin, piece.end) for piece in pieces)])
        return values[:, *(slice(piece.skipped, piece.skipped + piece.length) for piece in pieces)]

    def pass_through(self, tile: np.ndarray) -> np.ndarray:
        """Return what the network makes of a tile (C, Z, Y, X), (T, Z', Y', X') float32."""
        if self.measures is not None:
            tile = np.stack([measured(channel, *self.measures).apply(channel) for channel in tile])
        x = torch.from_numpy(np.ascontiguousarray(tile))[None].to(self.device, memory_format=torch.channels_last_3d)
        with torch.inference_mode(), computing_in(self.device, self.precision):
            logits = self.network(x)
        values = torch.cat([head.activate(logits[name].float())[0] for name, head in self.heads.items()])
        return np.asarray(values.cpu().numpy())


def check_tiles(tiles: Tiles) -> None:
    """Raise BadInput for an overlap that is not smaller than the tile."""
    for size, overlap in zip(tiles.shape or (), tiles.overlap, strict=False):
        if not 0 <= overlap < size:
            raise BadInput(
                f"--overlap {list(tiles.overlap)}: expected fewer voxels than a tile, {list(tiles.shape or ())}"
            )
