"""A trained network that predicts tiles: raw in, uint8 per head out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from funlib.geometry import Coordinate, Roi
from torch import Tensor

from emsuite.common.arrays import Shape
from emsuite.common.device import autocast
from emsuite.common.errors import BadInput, RunFailed
from emsuite.data.normalization import normalized, to_unit_range
from emsuite.data.raw import check_range
from emsuite.io.volume import Volume
from emsuite.models.network import AnyNetwork, AutocontextNetwork, probabilities, trained_part
from emsuite.models.unet import centre_crop
from emsuite.prediction.decoder_cropping import trimmed
from emsuite.prediction.tiling import BY_STRIDE, Tile, Tiling, tile_within


@dataclass(frozen=True)
class Predicted:
    """A tile's prediction, perhaps still on its way from the device."""

    values: dict[str, Tensor]
    finite: dict[str, Tensor]
    ready: "torch.cuda.Event | None"

    def arrays(self) -> dict[str, np.ndarray]:
        """`(C, Z, Y, X)` uint8 per head, 0 to 255 stands for 0 to 1; raises RunFailed where the network yields NaN."""
        if self.ready is not None:
            self.ready.synchronize()
        for name, finite in self.finite.items():
            if not bool(finite):
                raise RunFailed(f"prediction of {name}: NaN from the network; its weights are broken")
        return {name: values.numpy() for name, values in self.values.items()}


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

    def on(self, device: torch.device) -> "Predictor":
        """The same on another device, where its network is from now on."""
        self.network.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        return replace(self, device=device, lsds=self.lsds and self.lsds.on(device))

    def read(self, sources: Sequence[Volume], tile: Tile) -> list[Tensor]:
        """What a tile reads: raw, and LSDs if they are stored; raises BadInput for floats that are no grey values."""
        raw, found = sources[0], []
        begin = Coordinate(tile.begin) - Coordinate(self.network.receptive_field.offset)
        for source in sources:
            place = begin - (source.offset - raw.offset) / raw.voxel_size
            voxels = self.tiling.read(source, place, self.input_shape)
            if source is raw:
                check_range(raw, voxels)
            native = np.ascontiguousarray(voxels, dtype=voxels.dtype.newbyteorder("="))
            read = torch.from_numpy(native)
            found.append(read.pin_memory() if self.device.type == "cuda" else read)
        return found

    def __call__(self, raw: Tensor, lsds: Tensor | None = None) -> Predicted:
        """`(Z, Y, X)` uint8, or float in [0, 1], of the input shape, and `(10, Z, Y, X)` uint8 -> a tile's output."""
        x = normalized(raw.to(self.device, non_blocking=True))[None]
        if lsds is not None:
            descriptors = to_unit_range(lsds.to(self.device, non_blocking=True))
            autocontext = self.network.config.autocontext
            x = torch.cat([x, descriptors]) if autocontext and autocontext.with_raw else descriptors
        x = x[None].to(memory_format=torch.channels_last_3d)
        with torch.inference_mode():
            with autocast(self.device, self.precision):
                logits = self._logits(x)
            predicted = {name: found[0] for name, found in probabilities(logits).items()}
            finite = {name: self._fetched(torch.isfinite(found).all()) for name, found in predicted.items()}
            values = {name: self._fetched(self._to_uint8(found)) for name, found in predicted.items()}
        return Predicted(values, finite, self._end())

    def _end(self) -> "torch.cuda.Event | None":
        """What happens on a GPU once all that it was given is done."""
        if self.device.type == "cpu":
            return None
        event = torch.cuda.Event(blocking=True)  # whoever waits for it leaves the core to those that compress
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _logits(self, x: Tensor) -> dict[str, Tensor]:
        """Of the heads that are written, cropped to what comes out right."""
        right = [n - c for n, c in zip(x.shape[2:], self.network.receptive_field.context, strict=True)]
        if isinstance(self.network, AutocontextNetwork):
            found = self.network(x)
            return {name: centre_crop(found[name], right) for name in self.heads}
        unet, heads = self.network.unet, self.network.heads
        scale = unet.settings.stem.factor if unet.settings.stem else (1,) * len(right)
        with trimmed(unet, x.shape[2:], right):
            features = centre_crop(unet(x), [n // s for n, s in zip(right, scale, strict=True)])
        return {name: heads[name](features) for name in self.heads}

    def _to_uint8(self, predicted: Tensor) -> Tensor:
        scaled = self.tiling.to_uint8(predicted * 255.0).clamp_(0, 255)
        return scaled.to(torch.uint8, memory_format=torch.contiguous_format)

    def _fetched(self, found: Tensor) -> Tensor:
        """On the host; a GPU's as soon as the event behind it has happened."""
        if self.device.type == "cpu":
            return found
        host = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
        return host.copy_(found, non_blocking=True)

    @property
    def settings(self) -> dict[str, Any]:
        """What of it, beside the network, decides the bytes of a prediction."""
        lsds = {"lsds_input_shape": self.lsds.input_shape} if self.lsds else {}
        return {"tiles": self.tiling.name, "input_shape": self.input_shape} | lsds

    def grid(self, raw: Volume, wanted: Roi) -> list[Tile]:
        """The tiles that cover `wanted` (voxels) of `raw`."""
        return list(self.tiling.grid(self.network.receptive_field, self.input_shape, self.whole(raw), wanted))

    def whole(self, raw: Volume) -> Roi:
        """What of `raw` the grid is laid over, in voxels."""
        return self.tiling.whole((self.lsds or self).network.receptive_field, in_voxels(raw, raw.roi))

    def reads(self, grid: Sequence[Tile]) -> Roi:
        """All that the tiles of a grid read, in voxels."""
        first, last = Coordinate(grid[0].begin), Coordinate(grid[-1].begin)
        return Roi(first - Coordinate(self.network.receptive_field.offset), last - first + Coordinate(self.input_shape))

    @property
    def step(self) -> Shape:
        """What a tile yields, voxels."""
        return self.tiling.step(self.network.receptive_field, self.input_shape)


def make_predictor(
    network: AnyNetwork,
    device: torch.device,
    input_shape: Sequence[int],
    raw: Volume,
    roi: Roi,
    tiling: Tiling = BY_STRIDE,
) -> Predictor:
    """A predictor of `roi` (nm) of `raw`; its network goes to `device` when it begins, see `Predictor.on`.

    By the stride, its tiles suit `roi` and none is larger than `input_shape` voxels; original tiles are as large. Where
    LSDs are stored, `input_shape` goes through both networks in a row to find what the second one reads, and the first
    one's tiles are those of its own configuration. Raises BadInput where original tiles do not fit.
    """
    precision, heads = getattr(torch, network.config.prediction.precision), written_heads(network)
    network.eval()
    wanted, lsds = in_voxels(raw, roi), None
    if tiling.stores_lsds and isinstance(network, AutocontextNetwork):
        shape = tiling.input_shape(network.frozen.receptive_field, network.frozen.config.prediction.input_shape, wanted)
        lsds = Predictor(network.frozen, device, precision, tiling, shape, ("lsds",))
        input_shape = network.trained_input_shape(input_shape)
        network = network.trained
    shape = tiling.input_shape(network.receptive_field, input_shape, wanted)
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


def input_shape_for(network: AnyNetwork, tiling: Tiling, memory: int, raw: Volume, roi: Roi) -> Shape:
    """`prediction.input_shape`, or less if tiles by the stride would take more than `memory` bytes with it."""
    largest = network.config.prediction.input_shape
    if tiling != BY_STRIDE:
        return largest
    wanted = in_voxels(raw, roi)
    return tile_within(network.receptive_field, largest, memory / bytes_per_voxel(network), wanted.offset, wanted.shape)


def bytes_per_voxel(network: AnyNetwork) -> float:
    """About how much memory a tile takes for each voxel that it reads: raw as floats, and features of the finest level.

    Measured for FIB-25's `small` on the CPU: 57 to 79 bytes, here 80; the finest level's features are the most by far.
    """
    unet = trained_part(network).config.unet
    scale = np.prod(unet.stem.factor) if unet.stem else 1
    width = 2 if network.config.prediction.precision == "bfloat16" else 4
    return 20 + 7.5 * max(unet.fmaps(0), unet.fmaps_up(0)) * width / float(scale)


def written_heads(network: AnyNetwork) -> tuple[str, ...]:
    """Names of the heads that a network's prediction consists of."""
    return network.config.prediction.heads or tuple(network.config.heads)


def valid_roi(network: AnyNetwork, raw: Volume, roi: Roi, tiling: Tiling = BY_STRIDE) -> Roi:
    """The part of `roi` (nm) that can be predicted from real voxels alone; raises BadInput if there is none.

    Where LSDs are stored, all that have real context, as in the originals: what reads them finds zeros around them.
    """
    receptive_field = network.receptive_field
    if tiling.stores_lsds and isinstance(network, AutocontextNetwork):
        receptive_field = network.frozen.receptive_field
    offset, context = Coordinate(receptive_field.offset), Coordinate(receptive_field.context)
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


def in_voxels(raw: Volume, roi: Roi) -> Roi:
    """`roi` (nm) in voxels of `raw`, counted from its first one."""
    return Roi((roi.offset - raw.offset) / raw.voxel_size, roi.shape / raw.voxel_size)


def in_nm(raw: Volume, voxels: Roi) -> Roi:
    """The inverse of `in_voxels`."""
    return Roi(voxels.offset * raw.voxel_size + raw.offset, voxels.shape * raw.voxel_size)
