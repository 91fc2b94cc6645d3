"""What a network's passes take at the least: arithmetic and bytes by formula, over what this GPU reaches itself.

A layer takes as long as its arithmetic or its copying, whichever is longer; the layers of a pass follow each other.
Formulas count the network as published: what an implementation adds, as padded channels, is no work that is needed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from table import Row, seconds

from emsuite.common.arrays import Shape
from emsuite.config.network import NetworkConfig, parameter_count
from emsuite.models.unet_settings import UNetSettings

_ADAM = 28
"""Bytes that an update moves for each weight: gradient, weight and two moments read, all but the first written."""
_SIDE, _COPIED = 8192, 2**30
"""The matrices and the bytes that the rates of a GPU are measured with."""


@dataclass(frozen=True)
class Layer:
    """The multiplications of a layer, and the numbers that it reads and writes for a sample."""

    multiplications: int
    read: int
    written: int


@dataclass(frozen=True)
class Rates:
    """What a GPU reaches: operations per second in a large product of bfloat16 matrices, bytes per second copied."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class Work:
    """Operations and bytes, part by part."""

    parts: tuple[tuple[float, float], ...]

    def __add__(self, more: "Work") -> "Work":
        return Work(self.parts + more.parts)

    @property
    def flops(self) -> float:
        """All operations; a multiplication and an addition are two."""
        return sum(flops for flops, _ in self.parts)

    @property
    def bytes(self) -> float:
        """All bytes read and written."""
        return sum(moved for _, moved in self.parts)

    def least(self, rates: Rates) -> float:
        """Return the seconds that it takes at the least."""
        return sum(max(flops / rates.flops, moved / rates.bytes) for flops, moved in self.parts)


@dataclass
class _Walk:
    """The layers so far, and the shape and the channels of what the last of them wrote."""

    unet: UNetSettings
    shape: Shape
    channels: int
    found: list[Layer] = field(default_factory=list)

    def convolve(self, into: int, kernel: Shape, step: Shape | None = None) -> None:
        """Add a convolution to `into` channels; with a step, its padding is that of a stem."""
        step = step or (1,) * len(kernel)
        lost = [0 if pads else k - f for k, f, pads in zip(kernel, step, self.unet.pads, strict=True)]
        out = tuple((n - less) // f for n, less, f in zip(self.shape, lost, step, strict=True))
        self._add(math.prod(out) * into, math.prod(kernel), out, into)

    def upsample(self, into: int, factor: Shape) -> None:
        """Add an upsampling to `into` channels; a factor of 1 is a 1x1x1 convolution."""
        out = tuple(n * f for n, f in zip(self.shape, factor, strict=True))
        self._add(math.prod(out) * into, 1, out, into)

    def _add(self, written: int, kernel: int, out: Shape, into: int) -> None:
        read = math.prod(self.shape) * self.channels
        self.found.append(Layer(written * self.channels * kernel, read, written))
        self.shape, self.channels = out, into


def layers(unet: UNetSettings, channels: int, heads: Mapping[str, int], shape: Shape) -> list[Layer]:
    """Return the convolutions and upsamplings of a network: first the one that reads the input, last the heads.

    Args:
        unet: the architecture.
        channels: of the input.
        heads: channels of each head.
        shape: voxels of the input.
    """
    walk, factors = _Walk(unet, shape, channels), unet.downsample_factors
    if unet.stem:
        walk.convolve(unet.fmaps(0), unet.stem.kernel, unet.stem.factor)
    for level in range(unet.levels):
        for kernel in unet.kernels_down(level):
            walk.convolve(unet.fmaps(level), kernel)
        if level < unet.levels - 1 and unet.downsample == "strided":
            walk.convolve(walk.channels, factors[level], factors[level])
        elif level < unet.levels - 1:
            walk.shape = tuple(n // f for n, f in zip(walk.shape, factors[level], strict=True))
    for level in reversed(range(unet.levels - 1)):
        walk.upsample(unet.fmaps(level), factors[level])
        walk.channels = 2 * unet.fmaps(level)  # with the features that skip the coarser levels
        for kernel in unet.kernels_up(level):
            walk.convolve(unet.fmaps_up(level), kernel)
    features = walk.shape, walk.channels
    for into in heads.values():
        walk.shape, walk.channels = features
        walk.upsample(into, unet.stem.factor if unet.stem else (1,) * unet.dims)
    return walk.found


def forward(
    config: NetworkConfig, shape: Shape, precision: str, samples: int = 1, heads: Sequence[str] | None = None
) -> Work:
    """Return the work of a forward pass: each layer reads its input and writes its output once.

    Args:
        config: of a network that reads raw, or of the second network of an autocontext network.
        shape: voxels of its input.
        precision: of the convolutions.
        samples: in the pass.
        heads: those that are computed; None: all.
    """
    return _forward(_layers(config, shape, heads), samples, _width(precision))


def step(config: NetworkConfig, shape: Shape | None = None) -> Work:
    """Return the work of a training step: forward, backward, update. No gradient of the network's input is computed.

    Args:
        config: of the network.
        shape: voxels of the trained network's input; None: those of the samples.
    """
    training = config.training
    width, samples = _width(training.precision), training.batch_size
    passed = _layers(config, shape or training.input_shape, None)
    weights = [
        (2.0 * layer.multiplications * samples, width * samples * (layer.read + layer.written)) for layer in passed
    ]
    inputs = [
        (2.0 * layer.multiplications * samples, width * samples * layer.read) for layer in passed[1:]
    ]  # the gradient of the output was read for that of the weights
    update = [(0.0, _ADAM * parameter_count(config))]
    return _forward(passed, samples, width) + Work((*weights, *inputs, *update))


def measure_rates() -> Rates:
    """Measure the rates of the current GPU, in about a second."""
    import torch
    from measure import measure

    factors = [torch.randn(_SIDE, _SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
    source = torch.empty(_COPIED, dtype=torch.uint8, device="cuda")
    copy = torch.empty_like(source)
    product = measure(lambda: [torch.mm(*factors) for _ in range(10)], 3, 1, "cuda").wall / 10
    copying = measure(lambda: [copy.copy_(source) for _ in range(10)], 3, 1, "cuda").wall / 10
    return Rates(2 * _SIDE**3 / product, 2 * _COPIED / copying)


def row(what: str, work: Work, took: float, rates: Rates) -> Row:
    """Return the row of a roofline: what was reached of both rates, and the time over the least possible one."""
    flops, moved, least = work.flops / took, work.bytes / took, work.least(rates)
    ours = f"{seconds(took)}: {flops / 1e12:.3g} TFLOP/s ({flops / rates.flops:.0%}), "
    ours += f"{moved / 1e12:.3g} TB/s ({moved / rates.bytes:.0%})"
    beside = f"{work.flops / 1e12:.3g} TFLOP at {rates.flops / 1e12:.0f} TFLOP/s, "
    beside += f"{work.bytes / 1e9:.3g} GB at {rates.bytes / 1e12:.2f} TB/s: {seconds(least)}"
    return Row(f"roofline: {what}", ours, beside, took / least)


def _width(precision: str) -> int:
    return 2 if precision == "bfloat16" else 4


def _layers(config: NetworkConfig, shape: Shape, heads: Sequence[str] | None) -> list[Layer]:
    channels = {name: head.channels for name, head in config.heads.items() if heads is None or name in heads}
    return layers(config.unet, config.in_channels, channels, shape)


def _forward(passed: Sequence[Layer], samples: int, width: int) -> Work:
    return Work(
        tuple(
            (2.0 * layer.multiplications * samples, width * samples * (layer.read + layer.written)) for layer in passed
        )
    )
