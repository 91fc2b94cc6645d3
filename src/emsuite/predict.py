"""Prediction of a volume, tile by tile: raw in, uint8 per head out, memory set by the tile and not by the volume."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from funlib.geometry import Coordinate, Roi
from torch import Tensor

from emsuite.device import autocast
from emsuite.errors import BadInput, RunFailed
from emsuite.network import AnyNetwork, AutocontextNetwork, normalise, probabilities
from emsuite.output import Output
from emsuite.progress import progress
from emsuite.tiles import BY_STRIDE, Tile, Tiling
from emsuite.unet import Shape, centre_crop
from emsuite.volume import Volume, create_volume, open_volume

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Predictor:
    """A trained network on a device, its tiles and the heads it writes.

    `lsds` predicts what the network reads from storage; None: the network reads raw alone.
    """

    network: AnyNetwork
    device: torch.device
    precision: torch.dtype
    tiling: Tiling
    input_shape: Shape
    heads: tuple[str, ...]
    lsds: "Predictor | None" = None

    def __call__(self, raw: np.ndarray, lsds: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """`(Z, Y, X)` uint8, or float in [0, 1], of the input shape -> `(C, Z', Y', X')` uint8 per head.

        0 to 255 stands for 0 to 1. `lsds` are `(10, Z, Y, X)` uint8. Raises RunFailed where the network yields NaN.
        """
        x = normalise(to_unit_range(torch.from_numpy(raw).to(self.device)))[None]
        if lsds is not None:
            descriptors = to_unit_range(torch.from_numpy(lsds).to(self.device))
            autocontext = self.network.config.autocontext
            x = torch.cat([x, descriptors]) if autocontext and autocontext.with_raw else descriptors
        x = x[None].to(memory_format=torch.channels_last_3d)
        right = [n - c for n, c in zip(raw.shape, self.network.reach.context, strict=True)]
        with torch.inference_mode(), autocast(self.device, self.precision):
            predicted = probabilities(self.network(x))
        return {name: self._to_uint8(name, centre_crop(predicted[name][0], right)) for name in self.heads}

    def _to_uint8(self, name: str, predicted: Tensor) -> np.ndarray:
        if not bool(torch.isfinite(predicted).all()):
            raise RunFailed(f"prediction of {name}: NaN from the network; its weights are broken")
        return self.tiling.to_uint8(predicted * 255.0).clamp_(0, 255).to(torch.uint8).cpu().numpy()

    @property
    def settings(self) -> dict[str, Any]:
        """What of it, beside the network, decides the bytes of a prediction."""
        lsds = {"lsds_input_shape": self.lsds.input_shape} if self.lsds else {}
        return {"tiles": self.tiling.name, "input_shape": self.input_shape} | lsds

    def grid(self, raw: Volume, wanted: Roi) -> list[Tile]:
        """The tiles that cover `wanted` (voxels) of `raw`."""
        return list(self.tiling.grid(self.network.reach, self.input_shape, self.whole(raw), wanted))

    def whole(self, raw: Volume) -> Roi:
        """What of `raw` the grid is laid over, in voxels."""
        return self.tiling.whole((self.lsds or self).network.reach, _in_voxels(raw, raw.roi))

    @property
    def step(self) -> Shape:
        """What a tile yields, voxels."""
        return self.tiling.step(self.network.reach, self.input_shape)


def make_predictor(
    network: AnyNetwork,
    device: torch.device,
    input_shape: Sequence[int],
    raw: Volume,
    roi: Roi,
    tiling: Tiling = BY_STRIDE,
) -> Predictor:
    """A predictor of `roi` (nm) of `raw`.

    By the stride, its tiles suit `roi` and none is larger than `input_shape` voxels; original tiles are as large. Where
    LSDs are stored, `input_shape` goes through both networks in a row to find what the second one reads, and the first
    one's tiles are those of its own configuration. Raises BadInput where original tiles do not fit.
    """
    precision, heads = getattr(torch, network.config.prediction.precision), written_heads(network)
    network.eval().to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    wanted, lsds = _in_voxels(raw, roi), None
    if tiling.stores_lsds and isinstance(network, AutocontextNetwork):
        shape = tiling.input_shape(network.first.reach, network.first.config.prediction.input_shape, wanted)
        lsds = Predictor(network.first, device, precision, tiling, shape, ("lsds",))
        input_shape = network.second_input_shape(input_shape)
        network = network.second
    shape = tiling.input_shape(network.reach, input_shape, wanted)
    made = Predictor(network, device, precision, tiling, shape, heads, lsds)
    for part in (made, lsds or made):
        _check_fits(raw, made.whole(raw), tiling.least(part.step))
    return made


def _check_fits(raw: Volume, whole: Roi, least: Shape) -> None:
    if any(n < m for n, m in zip(whole.shape, least, strict=True)):
        raise BadInput(
            f"{raw.path}: {tuple(whole.shape)} voxels have real context, fewer than the {least} of one original tile; "
            "leave out --valid, or --tile original"
        )


def predict_volume(predictor: Predictor, raw: Volume, roi: Roi, out: Output) -> None:
    """Predict `roi` (nm) of `raw` into one zarr array per head below `out.path`, continuing an earlier run's tiles.

    LSDs that are stored for the network to read lie there as `input_lsds`, uint8, as far as `roi` needs them.
    """
    wanted, sources = _in_voxels(raw, roi), [raw]
    if predictor.lsds:
        needed = _read_by(predictor, predictor.grid(raw, wanted)).intersect(predictor.whole(raw))
        sources += _predict(predictor.lsds, [raw], needed, out, "input_").values()
    _predict(predictor, sources, wanted, out)
    for record in out.path.glob("done_*tiles.txt"):
        record.unlink()


def _read_by(predictor: Predictor, grid: list[Tile]) -> Roi:
    first, last = Coordinate(grid[0].begin), Coordinate(grid[-1].begin)
    return Roi(first - Coordinate(predictor.network.reach.offset), last - first + Coordinate(predictor.input_shape))


def _predict(
    predictor: Predictor, sources: list[Volume], wanted: Roi, out: Output, prefix: str = ""
) -> dict[str, Volume]:
    done_file = out.path / f"done_{prefix}tiles.txt"
    continued = out.resumed and done_file.exists()
    paths = {name: out.path / f"{prefix}{name}" for name in predictor.heads}
    if continued:
        arrays = {name: open_volume(path, "r+") for name, path in paths.items()}
    else:
        arrays = _create(predictor, sources[0], wanted, paths)
    done = set(done_file.read_text().split()) if continued else set()
    todo, what = predictor.grid(sources[0], wanted), "predict stored LSDs" if prefix else "predict"
    with open(done_file, "a" if continued else "w") as record:
        for index, tile in enumerate(progress(todo, what=what, unit="tile")):
            if str(index) in done:
                continue
            _predict_tile(predictor, sources, tile, arrays)
            print(index, file=record, flush=True)
    return arrays


def _predict_tile(predictor: Predictor, sources: list[Volume], tile: Tile, arrays: dict[str, Volume]) -> None:
    raw = sources[0]
    begin = Coordinate(tile.begin) - Coordinate(predictor.network.reach.offset)
    voxels = [
        predictor.tiling.read(source, begin - (source.offset - raw.offset) / raw.voxel_size, predictor.input_shape)
        for source in sources
    ]
    check_range(raw, voxels[0])
    place = _in_nm(raw, Roi(tile.keep_begin, tile.keep_shape))
    for name, predicted in predictor(*voxels).items():
        arrays[name].write(place, predicted[tile.kept_of_output])


def _create(predictor: Predictor, raw: Volume, wanted: Roi, paths: dict[str, Path]) -> dict[str, Volume]:
    chunks = [min(n, c) for n, c in zip(predictor.step, wanted.shape, strict=True)]
    offset, arrays = _in_nm(raw, wanted).offset, {}
    for name, path in paths.items():
        head = predictor.network.config.heads[name]
        shape, chunk = (head.channels, *wanted.shape), (head.channels, *chunks)
        arrays[name] = create_volume(path, shape, np.uint8, raw.voxel_size, offset, chunk)
        if head.target == "affinities":
            arrays[name].array.attrs["neighborhood"] = [list(offset) for offset in head.neighborhood]
    return arrays


def written_heads(network: AnyNetwork) -> tuple[str, ...]:
    """Names of the heads that a network's prediction consists of."""
    return network.config.prediction.heads or tuple(network.config.heads)


def _in_voxels(raw: Volume, roi: Roi) -> Roi:
    return Roi((roi.offset - raw.offset) / raw.voxel_size, roi.shape / raw.voxel_size)


def _in_nm(raw: Volume, voxels: Roi) -> Roi:
    return Roi(voxels.offset * raw.voxel_size + raw.offset, voxels.shape * raw.voxel_size)


def valid_roi(network: AnyNetwork, raw: Volume, roi: Roi, tiling: Tiling = BY_STRIDE) -> Roi:
    """The part of `roi` (nm) that can be predicted from real voxels alone; raises BadInput if there is none.

    Where LSDs are stored, all that have real context, as in the originals: what reads them finds zeros around them.
    """
    reach = network.reach
    if tiling.stores_lsds and isinstance(network, AutocontextNetwork):
        reach = network.first.reach
    offset, context = Coordinate(reach.offset), Coordinate(reach.context)
    shape = raw.spatial_shape - context
    if min(shape) <= 0:
        raise BadInput(
            f"{raw.path}: {tuple(raw.spatial_shape)} voxels are no more than the network's context {tuple(context)}; "
            "leave out --valid to predict with context made up"
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
