"""A trained network that predicts one tile at a time: raw goes in, uint8 comes out for each head."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emsuite.common.arrays import Shape
from emsuite.common.device import Precision, computing_in, in_pieces
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate, Roi
from emsuite.config.network import NetworkConfig, frozen_network_folder, load_network
from emsuite.data.normalization import GreyScale, normalized, to_unit_range
from emsuite.data.raw import check_range
from emsuite.data.training_volume import raw_source
from emsuite.io.volume import Volume
from emsuite.models.crop import centre_crop
from emsuite.models.network import AnyNetwork, AutocontextNetwork, Network, moved
from emsuite.models.transfer.generator import IMAGE
from emsuite.prediction.decoder_cropping import trimmed
from emsuite.prediction.region import in_voxels
from emsuite.prediction.tile.gpu_tiles import GpuTiles, pinned, round_kernels
from emsuite.prediction.tile.predicted import Outputs, Predicted
from emsuite.prediction.tile_grid import Tile, TileGrid
from emsuite.prediction.tiling import BY_STRIDE, Tiling
from emsuite.targets.head import Head


@dataclass(frozen=True)
class Predictor:
    """A trained network on a device, its configuration, its tiles and the heads that it writes.

    `lsds` predicts the LSDs that the network reads from storage. It is None for a network that reads raw alone.
    """

    network: AnyNetwork
    config: NetworkConfig
    device: torch.device
    precision: Precision
    tiling: Tiling
    input_shape: Shape
    heads: tuple[str, ...]
    lsds: "Predictor | None" = None
    grey_scale: GreyScale | None = None
    """The grey scale of the network's input; None: that of each tile."""
    output_scale: GreyScale | None = None
    """The grey scale of the images that it makes, of domain transfer; None: that of its input."""
    gpu: GpuTiles | None = None
    """Computes tiles on a GPU, see `on`; None: they are computed operation by operation."""

    def on(self, device: torch.device) -> "Predictor":
        """Move the network to `device` and return the predictor for it.

        On a GPU, kernels that torch would round to bfloat16 in each pass are rounded here, once.
        """
        moved(self.network, device)
        there = replace(self, device=device, lsds=self.lsds and self.lsds.on(device))
        if device.type != "cuda":
            return there
        if self.precision == "bfloat16":
            round_kernels(self.network)
        return replace(there, gpu=GpuTiles(there.outputs, device, self.grey_scale is not None))

    def read(self, sources: Sequence[Volume], tile: Tile) -> list[Tensor]:
        """Read the input of `tile` from each source: raw, and the LSDs if they are stored.

        Raises:
            BadInput: raw holds floats outside [0, 1].
        """
        raw, inputs = sources[0], []
        begin = Coordinate(tile.begin) - Coordinate(self.network.receptive_field.offset)
        for source in sources:
            begin_in_source = begin - (source.offset - raw.offset) / raw.voxel_size
            voxels = self.tiling.read(source, begin_in_source, self.input_shape)
            if source is raw:
                voxels = check_range(raw, voxels)
            native = np.ascontiguousarray(voxels, dtype=voxels.dtype.newbyteorder("="))
            tensor = torch.from_numpy(native)
            inputs.append(pinned(tensor) if self.device.type == "cuda" else tensor)
        return inputs

    def __call__(self, raw: Tensor, lsds: Tensor | None = None) -> Predicted:
        """Predict one tile.

        Args:
            raw: `(Z, Y, X)` of the input shape, uint8 or float in [0, 1].
            lsds: `(10, Z, Y, X)` uint8, for a network that reads stored LSDs.

        Raises:
            BadInput: raw holds floats outside [0, 1].
        """
        if raw.is_floating_point() and not bool(((raw > -1e-3) & (raw < 1 + 1e-3)).all()):
            raise BadInput(f"raw: floats from {raw.min():.3g} to {raw.max():.3g}, expected floats in [0, 1], or uint8")
        inputs = [raw] if lsds is None else [raw, lsds]
        if self.gpu is not None:
            outputs, ready = self.gpu(inputs)
            return Predicted(outputs.values, outputs.finite, ready)
        with torch.inference_mode():
            outputs = self.outputs(*(tensor.to(self.device, non_blocking=True) for tensor in inputs))
            outputs = outputs.each(self._fetched)
        return Predicted(outputs.values, outputs.finite, self._end())

    def outputs(self, raw: Tensor, lsds: Tensor | None = None, *, fused: bool = False) -> Outputs:
        """Return what a tile yields, on the device of its inputs, see `__call__`; unless it has a grey scale of its
        own, a GPU is not waited for.

        Args:
            raw: as in `__call__`.
            lsds: as in `__call__`.
            fused: whether values are rounded by the suite's own kernel, for GPUs.
        """
        scale, x = self._normalized(raw)
        if lsds is not None:
            descriptors = to_unit_range(lsds)
            autocontext = self.config.autocontext
            x = torch.cat([x, descriptors]) if autocontext and autocontext.with_raw else descriptors
        x = x[None].to(memory_format=torch.channels_last_3d)
        with computing_in(self.device, self.precision):
            logits = self.logits(x)
        stored = {name: self._stored(name, values[0], scale, fused) for name, values in logits.items()}
        return Outputs(
            {name: values for name, (values, _) in stored.items()},
            {name: finite for name, (_, finite) in stored.items()},
        )

    def _stored(self, name: str, logits: Tensor, scale: GreyScale, fused: bool) -> tuple[Tensor, Tensor]:
        """Return the values of a head that are fetched, and whether all of them are finite.

        Outputs that will be blended stay floats: uint8 comes after the sum.
        """
        head, floats = self.config.heads[name], self.tiling.window is not None
        if fused and not floats and _is_probability(head):
            from emsuite.prediction.tile.quantise_triton import quantised  # not at the top: a CPU has no triton

            return quantised(logits, self.tiling.truncates)
        values = self._values(name, logits.float(), scale)
        # one pass: values in [0, 1] have a finite sum unless one of them is NaN
        finite = torch.isfinite(values.sum() if _is_probability(head) else values).all()
        return (values if floats else self.to_stored(name, values)).contiguous(), finite

    def _normalized(self, raw: Tensor) -> tuple[GreyScale, Tensor]:
        """Return the grey scale of a tile, and its raw `(1, Z, Y, X)` in the range that the network reads."""
        scale = self.grey_scale or self.config.normalization.measure(to_unit_range(raw))
        if raw.device.type != "cpu":
            return scale, normalized(raw, scale)[None]
        voxels = torch.empty((1, *raw.shape))

        def section(z: int) -> None:  # it stays in the cache of a core on its way
            voxels[0, z] = normalized(raw[z], scale)

        in_pieces(section, range(len(raw)), raw.device)
        return scale, voxels

    def _values(self, name: str, logits: Tensor, scale: GreyScale) -> Tensor:
        """Return the values of a head for its logits, in [0, 1] if they are stored as uint8."""
        head = self.config.heads[name]
        values = head.activate(logits)
        if head.is_normalized:
            return (self.output_scale or scale).undo(values)
        return head.to_unit_range(values) if head.stored_as == "uint8" else values

    def _end(self) -> "torch.cuda.Event | None":
        """Return an event that happens when the GPU has done all its work so far."""
        if self.device.type == "cpu":
            return None
        event = torch.cuda.Event(blocking=True)  # a thread that waits for it leaves the core to those that compress
        event.record(torch.cuda.current_stream(self.device))
        return event

    def logits(self, x: Tensor) -> dict[str, Tensor]:
        """Return the logits `(1, C, Z, Y, X)` of the heads that are written, cropped to what comes out right.

        Args:
            x: `(1, C, Z, Y, X)` in the range that the network reads, on its device.
        """
        right = [n - c for n, c in zip(x.shape[2:], self.network.receptive_field.context, strict=True)]
        if not isinstance(self.network, Network):
            logits = self.network(x)
            return {name: centre_crop(logits[name], right) for name in self.heads}
        unet = self.network.unet
        scale = unet.settings.stem.factor if unet.settings.stem else (1,) * len(right)
        with trimmed(unet, x.shape[2:], right):
            features = centre_crop(unet(x), [n // s for n, s in zip(right, scale, strict=True)])
        return self.network.logits(features, self.heads)

    def to_stored(self, name: str, predicted: Tensor) -> Tensor:
        """Return the values of a head in the type of its array.

        uint8 stands for [0, 1]: values are rounded or truncated as the tiling says, and clipped.
        """
        if self.config.heads[name].stored_as == "float32":
            return predicted
        scaled = self.tiling.to_uint8(predicted * 255.0).clamp_(0, 255)
        return scaled.to(torch.uint8, memory_format=torch.contiguous_format)

    def _fetched(self, values: Tensor) -> Tensor:
        """Return `values` on the host. Those of a GPU are valid once the event recorded behind them has happened."""
        if self.device.type == "cpu":
            return values
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        return host.copy_(values, non_blocking=True)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings, beside those of the network, that decide the bytes of a prediction."""
        lsds = {"lsds_input_shape": self.lsds.input_shape} if self.lsds else {}
        return {"tiles": self.tiling.name, "input_shape": self.input_shape} | lsds

    def grid(self, raw: Volume, roi: Roi) -> TileGrid:
        """Return the tiles that cover `roi` (voxels) of `raw`."""
        return self.tiling.grid(self.network.receptive_field, self.input_shape, self.whole(raw), roi)

    def whole(self, raw: Volume) -> Roi:
        """Return the region of `raw`, in voxels, that the grid is laid over."""
        return self.tiling.whole((self.lsds or self).network.receptive_field, in_voxels(raw, raw.roi))

    def reads(self, grid: TileGrid) -> Roi:
        """Return the region, in voxels, that the tiles of a grid read together."""
        first, last = Coordinate(grid[0].begin), Coordinate(grid[-1].begin)
        return Roi(first - Coordinate(self.network.receptive_field.offset), last - first + Coordinate(self.input_shape))

    @property
    def step(self) -> Shape:
        """The output of one tile, voxels."""
        return self.tiling.step(self.network.receptive_field, self.input_shape)


def make_predictor(
    network: AnyNetwork,
    config: NetworkConfig,
    device: torch.device,
    input_shape: Sequence[int],
    raw: Volume,
    roi: Roi,
    tiling: Tiling = BY_STRIDE,
    frozen_config: NetworkConfig | None = None,
    grey_scale: GreyScale | None = None,
    output_scale: GreyScale | None = None,
) -> Predictor:
    """Return a predictor of `roi` of `raw`. The network moves to `device` later, see `Predictor.on`.

    Args:
        network: the trained network.
        config: its configuration.
        device: where it will predict.
        input_shape: voxels of raw. By the stride, tiles suit `roi` and are no larger; original tiles are as large.
            Where LSDs are stored, this shape goes through both networks in a row to find what the second one reads.
        raw: the volume.
        roi: the region to predict, nm.
        tiling: where tiles lie and how their outputs are put together.
        frozen_config: the configuration of the frozen network, which says the tiles of stored LSDs. Only tilings that
            store the LSDs of an autocontext network need it.
        grey_scale: measured on the training volumes, as the checkpoint records it.
        output_scale: of the images that domain transfer makes, as the checkpoint records it.

    Raises:
        BadInput: original tiles do not fit the network, or the volume.
    """
    precision, heads = config.prediction.precision, written_heads(config)
    network.eval()
    roi_vx, lsds, scale = in_voxels(raw, roi), None, _grey_scale(config, raw, grey_scale)
    if tiling.stores_lsds and isinstance(network, AutocontextNetwork):
        assert frozen_config is not None, "stored LSDs need the configuration of the frozen network"
        frozen, head = network.frozen, network.context_head
        shape = tiling.input_shape(frozen.receptive_field, frozen_config.prediction.input_shape, roi_vx)
        lsds = Predictor(frozen, frozen_config, device, precision, tiling, shape, (head,), None, scale)
        input_shape = network.trained_input_shape(input_shape)
        network = network.trained
    shape = tiling.input_shape(network.receptive_field, input_shape, roi_vx)
    predictor = Predictor(network, config, device, precision, tiling, shape, heads, lsds, scale,
                          output_scale=output_scale)  # fmt: skip
    for part in (predictor, lsds or predictor):
        _check_fits(raw, predictor.whole(raw), tiling.least(part.step))
    return predictor


def _grey_scale(config: NetworkConfig, raw: Volume, measured: GreyScale | None) -> GreyScale | None:
    """Return the grey scale of all tiles, or None if each tile has its own."""
    if config.transfer is not None:
        return measured
    normalization = config.normalization
    if normalization.fixed or normalization.scope == "tile":
        return normalization.fixed
    return normalization.measure_volumes([raw_source(raw)]) if normalization.scope == "volume" else measured


def _check_fits(raw: Volume, whole: Roi, least: Shape) -> None:
    if any(n < m for n, m in zip(whole.shape, least, strict=True)):
        raise BadInput(
            f"{raw.path}: {tuple(whole.shape)} voxels have real context, fewer than the {least} of one original tile; "
            "leave out --valid, or --tile original"
        )


def load_frozen_config(network_dir: Path, config: NetworkConfig) -> NetworkConfig | None:
    """Return the configuration of the frozen network whose LSDs the network in `network_dir` reads, or None."""
    folder = frozen_network_folder(network_dir, config)
    return None if folder is None else load_network(folder)


def written_heads(config: NetworkConfig) -> tuple[str, ...]:
    """Return the names of the heads that a prediction consists of."""
    return config.prediction.heads or ((IMAGE,) if config.transfer else tuple(config.heads))


def _is_probability(head: Head) -> bool:
    """Return whether stored values are the bytes of a sigmoid."""
    return head.activation == "sigmoid" and head.stored_as == "uint8" and not head.is_normalized
