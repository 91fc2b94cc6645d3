"""The size of tiles: that of the configuration, less where memory is short, more on a GPU that has room for it.

    input     |<----------- 484 ----------->|             a fifth of the voxels that this tile reads are predicted:
    output              |<- 272 ->|                       the rest is context, computed for each tile anew
    input     |<------------------ 754 ------------------>|
    output              |<------- 542 ------->|           here two fifths, so that the same volume costs half as much

Where every voxel is kept from one tile, it has the same value whatever the size, see `tiling.py`. Where outputs are
blended, or each tile has its own grey scale, the size decides the values: then no tile is larger than is configured.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emsuite.common.arrays import Shape
from emsuite.common.device import memory_to_use
from emsuite.common.geometry import Roi
from emsuite.config.network import NetworkConfig
from emsuite.io.volume import Volume
from emsuite.models.network import AnyNetwork, AutocontextNetwork, is_local, trained_part
from emsuite.models.receptive_field import ReceptiveField
from emsuite.models.transfer.generator import Generator
from emsuite.models.unet_settings import UNetSettings
from emsuite.prediction.predictor import written_heads
from emsuite.prediction.region import in_voxels
from emsuite.prediction.settings import earlier_input_shape
from emsuite.prediction.tiling import BY_STRIDE, ByStride, Tiling, tile_within

logger = logging.getLogger(__name__)

LARGEST = 2.0
"""How many times as long as configured a tile is along an axis, at most, on a GPU."""
_STEPS = 10  # sizes between that and the configured one
_TILES = 8  # for each worker, at least: while it computes one, others are read and written
_ON_HOST = 10  # outputs of tiles that lie in the host's memory at once, about
_MOST_VALUES = 2**31 - 1  # of one tensor: kernels count its values in 32 bits
_LEAST_SHARE = 1 / 32  # of a tile's voxels that it yields; the networks for volumes keep 1 / 12 and more
_ALIGNED = 16  # channels may be padded to a multiple of it


def tile_for(
    out: Path,
    settings: Mapping[str, Any],
    network: AnyNetwork,
    config: NetworkConfig,
    tiling: Tiling,
    raw: Volume,
    roi: Roi,
    device: torch.device,
    workers: int,
) -> Shape:
    """Return the tile of an earlier run to `out` with the same `settings`, or else that of `input_shape_for`."""
    earlier = earlier_input_shape(out, settings)
    return earlier or input_shape_for(
        network, config, tiling, memory_to_use(device, workers), raw, roi, device, workers
    )


def input_shape_for(
    network: AnyNetwork,
    config: NetworkConfig,
    tiling: Tiling,
    memory: int,
    raw: Volume,
    roi: Roi,
    device: torch.device | None = None,
    workers: int = 1,
) -> Shape:
    """Return the largest tile for a prediction: `prediction.input_shape`, or what memory allows, see the module.

    Args:
        network: the network.
        config: its configuration.
        tiling: where tiles lie. Original tiles are never smaller or larger than configured.
        memory: bytes of `device` that tiles of one worker may take.
        raw: the volume.
        roi: the region to predict, nm.
        device: where it is predicted; None: the CPU, whose tiles are never larger than configured.
        workers: processes that share the tiles.

    Returns:
        voxels, z y x. It suits `roi` with the fewest tiles, see `tile_within`.
    """
    own, field = config.prediction.input_shape, network.receptive_field
    if not isinstance(tiling, ByStride):
        return own
    roi_vx, voxels = in_voxels(raw, roi), memory / bytes_per_voxel(network, config, tiling)

    def within(largest: Sequence[int]) -> Shape:
        return tile_within(field, largest, voxels, roi_vx.offset, roi_vx.shape)

    if device is not None and device.type == "cuda" and _is_free(network, config, tiling):
        channels = sum(config.heads[name].channels for name in written_heads(config))
        host = memory_to_use(torch.device("cpu"), workers) / (_ON_HOST * channels)
        for step in range(_STEPS, 0, -1):
            tile = within([int(n * (1 + (LARGEST - 1) * step / _STEPS)) for n in own])
            output = field.step(tile)
            tiles = math.prod(-(-n // width) for n, width in zip(roi_vx.shape, output, strict=True))
            enough = tiles >= _TILES * workers and math.prod(output) <= host
            if enough and largest_tensor(network, config, tile) <= _MOST_VALUES:
                return tile
    return within(own)


def tell_of_margins(input_shape: Sequence[int], step: Sequence[int], region: Sequence[int]) -> None:
    """Log a warning if tiles yield few of the voxels that they read, and the region needs several; all z, y, x."""
    several = any(n > width for n, width in zip(region, step, strict=True))
    if several and math.prod(step) < _LEAST_SHARE * math.prod(input_shape):
        logger.warning(
            "tiles of %s voxels yield %s each, the rest is margin; larger ones are faster: --input-shape, or "
            "prediction.input_shape", "x".join(map(str, input_shape)), "x".join(map(str, step)),
        )  # fmt: skip


def _is_free(network: AnyNetwork, config: NetworkConfig, tiling: Tiling) -> bool:
    """Return whether no value depends on the size of the tiles."""
    normalization = config.normalization
    if config.transfer is not None:
        return tiling.window is None and is_local(network)
    return tiling.window is None and (normalization.fixed is not None or normalization.scope != "tile")


def bytes_per_voxel(network: AnyNetwork, config: NetworkConfig, tiling: Tiling = BY_STRIDE) -> float:
    """Return about how many bytes of memory a tile takes for each voxel that it reads.

    This counts raw as floats and the features of the finest level, which are the most by far. Measured for FIB-25's
    `small` on the CPU: 57 to 79 bytes, here 80. Blended outputs add the sums of a row.
    """
    width = 2 if config.prediction.precision == "bfloat16" else 4
    sums = tiling.bytes_per_value * sum(config.heads[name].channels for name in written_heads(config))
    if isinstance(network, Generator):
        return 20 + 7.5 * network.finest_width * width + sums
    unet = trained_part(network).settings
    scale = np.prod(unet.stem.factor) if unet.stem else 1
    return 20 + 7.5 * max(unet.fmaps(0), unet.fmaps_up(0)) * width / float(scale) + sums


def largest_tensor(network: AnyNetwork, config: NetworkConfig, input_shape: Sequence[int]) -> int:
    """Return how many values the largest tensor of a forward pass has at most; channels count as padded."""
    if isinstance(network, Generator):
        return _padded(2 * network.finest_width) * math.prod(input_shape)
    parts = [network.frozen, network.trained] if isinstance(network, AutocontextNetwork) else [network]
    heads = max(head.channels for head in config.heads.values())
    return max(_largest_of(part.settings, part.receptive_field, input_shape, heads) for part in parts)


def _largest_of(unet: UNetSettings, field: ReceptiveField, input_shape: Sequence[int], heads: int) -> int:
    stem = unet.stem.factor if unet.stem else (1,) * unet.dims
    output = [n - c for n, c in zip(input_shape, field.context, strict=True)]
    sizes, voxels = [_padded(heads) * math.prod(output)], math.prod(input_shape) // math.prod(stem)
    for level in range(unet.levels):
        sizes.append(_padded(unet.fmaps(level)) * voxels)
        if level == 0:  # what comes up is no more than the output and the kernels' context, see `decoder_cropping`
            kernels = unet.kernels_up(0) if unet.levels > 1 else ()
            around = [sum(kernel[axis] for kernel in kernels) for axis in range(unet.dims)]
            up = math.prod(n // s + more for n, s, more in zip(output, stem, around, strict=True))
            sizes.append(_padded(2 * unet.fmaps(0)) * min(up, voxels))
        else:
            sizes.append(_padded(2 * unet.fmaps(level)) * voxels)
        if level < unet.levels - 1:
            voxels //= math.prod(unet.downsample_factors[level])
    return max(sizes)


def _padded(channels: int) -> int:
    return -(-channels // _ALIGNED) * _ALIGNED
