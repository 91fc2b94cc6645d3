"""Prediction of a volume, tile by tile: raw in, uint8 per head out, memory set by the tile and not by the volume."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from funlib.geometry import Coordinate, Roi
from torch import Tensor

from emsuite import tiles
from emsuite.device import autocast
from emsuite.errors import BadInput, RunFailed
from emsuite.network import AnyNetwork, normalise, probabilities
from emsuite.output import Output
from emsuite.progress import progress
from emsuite.unet import Shape, centre_crop
from emsuite.volume import Volume, create_volume, open_volume

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Predictor:
    """A trained network on a device, and the input shape of its tiles."""

    network: AnyNetwork
    device: torch.device
    input_shape: Shape
    precision: torch.dtype

    def __call__(self, raw: np.ndarray) -> dict[str, np.ndarray]:
        """`(Z, Y, X)` uint8, or float in [0, 1], of the input shape -> `(C, Z', Y', X')` uint8 per head.

        0 to 255 stands for 0 to 1, rounded. Raises RunFailed where the network yields NaN.
        """
        x = normalise(to_unit_range(torch.from_numpy(raw).to(self.device)))[None, None]
        x = x.to(memory_format=torch.channels_last_3d)
        right = [n - c for n, c in zip(raw.shape, self.network.reach.context, strict=True)]
        with torch.inference_mode(), autocast(self.device, self.precision):
            predicted = probabilities(self.network(x))
        return {name: _to_uint8(name, centre_crop(predicted[name][0], right)).cpu().numpy() for name in self.heads}

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the heads that are written."""
        return self.network.config.prediction.heads or tuple(self.network.config.heads)


def make_predictor(
    network: AnyNetwork, device: torch.device, largest_input: Sequence[int], raw: Volume, roi: Roi
) -> Predictor:
    """A predictor whose tiles suit `roi` (nm) of `raw`, none larger than `largest_input` voxels."""
    begin, shape = _in_voxels(raw, roi)
    input_shape = tiles.even_input_shape(network.reach, largest_input, begin, shape)
    precision = getattr(torch, network.config.prediction.precision)
    network = network.eval().to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return Predictor(network, device, input_shape, precision)


def predict_volume(predictor: Predictor, raw: Volume, roi: Roi, out: Output) -> None:
    """Predict `roi` (nm) of `raw` into one zarr array per head below `out.path`, continuing an earlier run's tiles."""
    begin, shape = _in_voxels(raw, roi)
    arrays = _arrays(predictor, raw, roi, out)
    todo = list(tiles.grid(predictor.network.reach, predictor.input_shape, begin, shape))
    done_file = out.path / "done_tiles.txt"
    done = set(done_file.read_text().split()) if done_file.exists() else set()
    with open(done_file, "a") as record:
        for index, tile in enumerate(progress(todo, what="predict", unit="tile")):
            if str(index) in done:
                continue
            _predict_tile(predictor, raw, tile, arrays)
            print(index, file=record, flush=True)
    done_file.unlink()


def _predict_tile(predictor: Predictor, raw: Volume, tile: tiles.Tile, arrays: dict[str, Volume]) -> None:
    read_begin = [b - o for b, o in zip(tile.begin, predictor.network.reach.offset, strict=True)]
    voxels = tiles.read_reflected(raw, read_begin, predictor.input_shape)
    check_range(raw, voxels)
    predicted = predictor(voxels)
    place = Roi(Coordinate(tile.keep_begin) * raw.voxel_size + raw.offset, Coordinate(tile.keep_shape) * raw.voxel_size)
    for name, voxels in predicted.items():
        arrays[name].write(place, voxels[tile.kept_of_output])


def _arrays(predictor: Predictor, raw: Volume, roi: Roi, out: Output) -> dict[str, Volume]:
    names = {name: out.path / name for name in predictor.heads}
    if out.resumed and (out.path / "done_tiles.txt").exists():
        return {name: open_volume(path, "r+") for name, path in names.items()}
    spatial = tuple(roi.shape / raw.voxel_size)
    chunks = [min(n, c) for n, c in zip(predictor.network.reach.step(predictor.input_shape), spatial, strict=True)]
    arrays = {}
    for name in predictor.heads:
        head = predictor.network.config.heads[name]
        shape, chunk = (head.channels, *spatial), (head.channels, *chunks)
        arrays[name] = create_volume(names[name], shape, np.uint8, raw.voxel_size, roi.offset, chunk)
        if head.target == "affinities":
            arrays[name].array.attrs["neighborhood"] = [list(offset) for offset in head.neighborhood]
    return arrays


def _in_voxels(raw: Volume, roi: Roi) -> tuple[Shape, Shape]:
    return tuple((roi.offset - raw.offset) / raw.voxel_size), tuple(roi.shape / raw.voxel_size)


def valid_roi(network: AnyNetwork, raw: Volume, roi: Roi) -> Roi:
    """The part of `roi` (nm) that can be predicted from real voxels alone; raises BadInput if there is none."""
    offset, context = Coordinate(network.reach.offset), Coordinate(network.reach.context)
    shape = raw.spatial_shape - context
    if min(shape) <= 0:
        raise BadInput(
            f"{raw.path}: {tuple(raw.spatial_shape)} voxels are no more than the network's context {tuple(context)}; "
            "leave out --valid to predict with reflected context"
        )
    valid = Roi(raw.offset + offset * raw.voxel_size, shape * raw.voxel_size)
    if valid.intersect(roi).empty:
        raise BadInput(f"{raw.path}: nothing of {roi} nm has real context, {valid} has; leave out --valid")
    return valid.intersect(roi)


def check_name(out: Path) -> None:
    """Refuse a place for predictions that is no zarr, before anything is written there."""
    if out.suffix != ".zarr":
        raise BadInput(f"{out}: predictions are written as zarr, expected a name that ends in .zarr")


def check_raw(raw: Volume, voxel_size: Sequence[int]) -> None:
    """Refuse raw that a network of that voxel size (nm) cannot read."""
    if raw.channels is not None or raw.voxel_size.dims != 3:
        raise BadInput(f"{raw.path}: {len(raw.shape)} axes {raw.shape}, expected raw with 3 (z, y, x)")
    if raw.dtype != np.uint8 and raw.dtype.kind != "f":
        raise BadInput(f"{raw.path}: {raw.dtype}, expected uint8, or floats in [0, 1]")
    if tuple(raw.voxel_size) != tuple(voxel_size):
        raise BadInput(f"{raw.path}: voxel size {tuple(raw.voxel_size)} nm, expected the network's {tuple(voxel_size)}")


def check_range(raw: Volume, voxels: np.ndarray) -> None:
    """Refuse `voxels` of `raw` that are floats outside [0, 1], or NaN."""
    if voxels.dtype.kind == "f" and not ((voxels >= 0) & (voxels <= 1)).all():
        held = "NaN" if np.isnan(voxels).any() else f"floats from {voxels.min():.3g} to {voxels.max():.3g}"
        raise BadInput(f"{raw.path}: holds {held}, expected floats in [0, 1], or uint8")


def to_unit_range(raw: Tensor) -> Tensor:
    """uint8 as float32 in [0, 1]; floats, which lie there already, as float32."""
    return raw.float() / 255.0 if raw.dtype == torch.uint8 else raw.float()


def _to_uint8(name: str, predicted: Tensor) -> Tensor:
    if not bool(torch.isfinite(predicted).all()):
        raise RunFailed(f"prediction of {name}: NaN from the network; its weights are broken")
    return (predicted * 255.0).round_().clamp_(0, 255).to(torch.uint8)
