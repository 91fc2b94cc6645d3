"""The prediction of a plate, position by position, on several threads; a stopped run continues behind whole ones."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emsuite.common.device import one_core
from emsuite.common.errors import BadInput
from emsuite.common.files import remove
from emsuite.common.outputs import is_finished, output
from emsuite.config.network import NetworkConfig
from emsuite.config.trained_with import settings_of_images
from emsuite.io.fingerprint import origin_of
from emsuite.io.volume import fingerprint
from emsuite.models.network import AnyNetwork, Network, moved
from emsuite.plates.plate import check_outside, in_threads, note_result, noted_result
from emsuite.prediction.plate.formats import PlateOutput
from emsuite.prediction.plate.forward import WHOLE, ImagePredictor, Tiles, check_tiles
from emsuite.prediction.plate.source import PlateSource, as_grey, output_channels
from emsuite.prediction.plate.vectors import write_vectors

_DONE = "done"


@dataclass(frozen=True)
class PlatePrediction:
    """What is predicted, by what, and where it goes."""

    source: PlateSource
    predictor: ImagePredictor
    out: PlateOutput
    keeps_variance: bool = False
    tile_of_vectors: tuple[int, ...] | None = None
    """Voxels of a tile, z y x, of a network to a vector; None: it predicts images."""

    def write(self, settings: Mapping[str, Any], inputs: Mapping[str, Path], workers: int) -> bool:
        """Write the prediction, unless it is there already, made with the same settings.

        Args:
            settings: all that decide the bytes, beside the plate.
            inputs: the checkpoint and the plate.
            workers: threads, one core each on a CPU; the bytes do not depend on them.

        Returns:
            Whether anything was written.

        Raises:
            BadInput: the plate is damaged, or holds NaN, or the output lies in it.
        """
        out = self.out.path
        if settings.get("part"):  # a split may be dealt anew
            settings = dict(settings) | {"positions": list(self.out.positions)}
        if self.tile_of_vectors:
            return write_vectors(out, self.source, self.predictor, self.tile_of_vectors, self.out.channels,
                                 self.out.positions, settings, inputs, workers)  # fmt: skip
        check_outside(out, self.source.path)
        record = dict(settings) | {"origin": origin_of(self.source.plate.path)}
        if is_finished(out, record):
            return False
        with output(out, record, inputs=inputs, fingerprint=fingerprint) as made:
            done = out / _DONE
            if not (made.resumed and done.exists()):
                made.clear()
                self.out.begin()
                done.mkdir(parents=True)
            written = in_threads(
                lambda position: self._position(position, done), self.out.positions, workers, "predict"
            )
            self.out.finish([frame for frames in written for frame in frames])
            remove(done)
            made.everything = True
        return True

    def _position(self, position: str, done: Path) -> list[list[int]]:
        """Predict a position, unless an earlier run has; return its frames."""
        earlier = noted_result(done, position, self.out.path / position)
        if isinstance(earlier, list) and self.out.has(earlier):
            return earlier
        times, _, *spatial = self.source.plate.shape(position)
        with one_core() if self.predictor.device.type == "cpu" else nullcontext():
            numbers = self.source.plate.numbers(position)
            frames = self.out.write(position, (times, *spatial), numbers, lambda time: self._volume(position, time))
        note_result(done, position, self.out.path / position, frames)
        return frames

    def _volume(self, position: str, time: int) -> np.ndarray:
        """Return the channels of a volume, (C, Z, Y, X) float32 grey values."""
        mean, variance = self.predictor(self.source.read(position, time))
        values = np.concatenate([mean, variance]) if self.keeps_variance else mean
        return np.stack([as_grey(each, channel) for each, channel in zip(values, self.out.channels, strict=True)])


@dataclass(frozen=True)
class Asked:
    """What the command line asks for."""

    plate: Path
    out: Path
    part: str | None = None
    """Of the split; None: all of it."""
    positions: tuple[str, ...] = ()
    """None: all."""
    tiles: Tiles = WHOLE
    copies: str = "none"
    variance: bool = False
    format: str = "zarr"

    def settings(self, config: NetworkConfig) -> dict[str, Any]:
        """Return all settings that decide the bytes, beside the weights and the plate."""
        network = settings_of_images(config)
        tiles = {"tile": self.tiles.shape, "overlap": self.tiles.overlap, "blend": self.tiles.blend}
        chosen = {"part": self.part, "positions": list(self.positions)}
        return {"network": network, "copies": self.copies, "variance": self.variance, "format": self.format,
                **(tiles if self.tiles.shape else {}), **chosen}  # fmt: skip


def plate_prediction(
    config: NetworkConfig, network: AnyNetwork, recorded: Mapping[str, Any] | None, device: torch.device, asked: Asked
) -> PlatePrediction:
    """Return the prediction that is asked for, ready to be written.

    Args:
        config: of the network.
        network: trained; it moves to `device`.
        recorded: the normalization in its checkpoint.
        device: predicts.
        asked: what to predict, and how.

    Raises:
        BadInput: the network is none of a plate, the plate lacks a channel or a position, tiles overlap as a whole, or
            a network to a vector is asked for more than its table.
    """
    where = f"{config.dataset}/{config.network}"
    if config.plate is None or recorded is None or not isinstance(network, Network):
        raise BadInput(f"{where}: was not trained on a plate, expected a network with the key `plate`")
    tile = config.training.input_shape if config.supervised_unet.output == "vector" else None
    if tile and (asked.tiles.shape or asked.copies != "none" or asked.format != "csv"):
        raise BadInput(f"{where}: predicts vectors, expected --format csv, without --tile and --copies")
    if not tile and asked.format == "csv":
        raise BadInput(f"{where}: predicts images, expected another --format than csv")
    check_tiles(asked.tiles)
    source = PlateSource(asked.plate, config.plate.input_channels, recorded)
    assert source.numbers, "the schema asks for a channel"  # read before anything is computed
    heads = {name: head for name, head in config.image_heads.items() if name in (config.prediction.heads or [name])}
    moved(network, device)
    network.eval()
    predictor = ImagePredictor(
        network, heads, device, config.prediction.precision, asked.tiles, asked.copies, source.measures
    )
    channels = output_channels(heads, recorded, asked.variance)
    positions, size = source.positions(asked.part, asked.positions), source.plate.voxel_size_nm
    out = PlateOutput(asked.out, asked.format, channels, positions, size)
    out.check()
    return PlatePrediction(source, predictor, out, asked.variance, tile)
