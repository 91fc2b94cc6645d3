"""The one U-Net: 2-D or 3-D, isotropic or not, valid or same convolutions (Ronneberger et al. 2015; Funke et al. 2018).

    level 0   left_0 left_1 ------------- crop ------------> [skip, up] right_0 right_1   -> num_fmaps_out
                  | down                                         ^ up_1_to_0
    level 1   left_0 left_1 --- crop ---> [skip, up] right_0 right_1
                  | down                      ^ up_2_to_1
    level 2   left_0 left_1 ------------------+

Parameters have the names of the published checkpoints, without their scope: `layer_0_left_0`, `up_1_to_0`,
`layer_0_right_1` (funkelab/lsd_nm_experiments, mknet).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from emsuite.common.arrays import Shape
from emsuite.common.settings import Settings
from emsuite.models.aligned import aligns, convolve_relu
from emsuite.models.crop import centre_crop, crop_and_pool, join
from emsuite.models.upsample import Upsample

_MOST_FMAPS = 2**16
_MOST_CONTEXT = 4096
"""Voxels along an axis: of the stride, and of all kernels of a network together."""
_MOST_IN_KERNEL = 10_000

Fmaps = Annotated[int, Field(gt=0, le=_MOST_FMAPS)]
Sizes = tuple[PositiveInt, ...]
Kernels = Annotated[tuple[Sizes, ...], Field(min_length=1, max_length=100)]

_CONV: dict[int, Callable[..., nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_BATCH_NORM: dict[int, Callable[..., nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_MAX_POOL: dict[int, Callable[..., Tensor]] = {2: functional.max_pool2d, 3: functional.max_pool3d}


class Stem(Settings):
    """A strided convolution from raw to level 0. The heads bring the result back to raw's resolution.

    It divides the arithmetic of a network by the product of the factor, and widens the receptive field by the factor.
    """

    kernel: Sizes = Field(description="z, y, x")
    factor: Sizes = Field(description="voxels of raw per voxel of level 0, z, y, x")

    @model_validator(mode="after")
    def _consistent(self) -> "Stem":
        if len(self.kernel) != len(self.factor) or any(
            k < f or (k - f) % 2 for k, f in zip(self.kernel, self.factor, strict=True)
        ):
            raise ValueError("the kernel must be as large as the factor, or larger by an even number, along each axis")
        return self


class UNetSettings(Settings):
    """Architecture of one U-Net. Levels count from 0, the finest."""

    num_fmaps: Fmaps = Field(12, description="feature maps of level 0")
    fmap_inc_factor: Fmaps = Field(5, description="feature maps of a level, divided by those of the next finer one")
    max_fmaps: Fmaps | None = Field(None, description="upper limit of the feature maps of a level (default: none)")
    num_fmaps_out: Fmaps | None = Field(None, description="feature maps of level 0 on the way up (default: num_fmaps)")
    downsample_factors: tuple[Sizes, ...] = Field(max_length=12, description="factor of each step down, along z, y, x")
    kernel_sizes_down: tuple[Kernels, ...] | None = Field(
        None, description="kernels of each level on the way down (default: two of 3x3x3)"
    )
    kernel_sizes_up: tuple[Kernels, ...] | None = Field(
        None, description="kernels of each level but the coarsest on the way up (default: two of 3x3x3)"
    )
    padding: Literal["valid", "same"] = Field(
        "valid", description="valid: the output shrinks; same: zeros pad the input"
    )
    downsample: Literal["max_pool", "strided"] = Field(
        "max_pool", description="strided: a convolution, kernel = stride"
    )
    stem: Stem | None = Field(None, description="a strided convolution before level 0 (default: raw enters level 0)")
    norm: Literal["none", "batch"] = Field(
        "none", description="batch: batch normalisation after each convolution of a level"
    )

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self.downsample_factors[0])

    @property
    def levels(self) -> int:
        """Number of resolutions."""
        return len(self.downsample_factors) + 1

    @property
    def stride(self) -> Shape:
        """Smallest shift of the input, in voxels, that shifts the output by the same amount and does nothing else."""
        product = list(self.stem.factor) if self.stem else [1] * self.dims
        for factor in self.downsample_factors:
            product = [p * f for p, f in zip(product, factor, strict=True)]
        return tuple(product)

    def fmaps(self, level: int) -> int:
        """Return the number of feature maps of `level` on the way down."""
        fmaps = self.num_fmaps * self.fmap_inc_factor**level
        return min(fmaps, self.max_fmaps) if self.max_fmaps else fmaps

    def fmaps_up(self, level: int) -> int:
        """Return the number of feature maps of `level` on the way up."""
        return self.num_fmaps_out if level == 0 and self.num_fmaps_out else self.fmaps(level)

    def kernels_down(self, level: int) -> tuple[Shape, ...]:
        """Return the kernels of `level` on the way down."""
        return self.kernel_sizes_down[level] if self.kernel_sizes_down else ((3,) * self.dims,) * 2

    def kernels_up(self, level: int) -> tuple[Shape, ...]:
        """Return the kernels of `level` on the way up."""
        return self.kernel_sizes_up[level] if self.kernel_sizes_up else ((3,) * self.dims,) * 2

    @model_validator(mode="after")
    def _consistent(self) -> "UNetSettings":
        lengths = {len(factor) for factor in (*self.downsample_factors, *([self.stem.factor] if self.stem else []))}
        if len(lengths) != 1 or not lengths <= {2, 3}:
            raise ValueError("downsample_factors must be at least one factor, all of 2 or all of 3 axes")
        for name, kernels, count in (
            ("kernel_sizes_down", self.kernel_sizes_down, self.levels),
            ("kernel_sizes_up", self.kernel_sizes_up, self.levels - 1),
        ):
            if kernels is not None and len(kernels) != count:
                raise ValueError(f"{name} lists {len(kernels)} levels, expected {count}")
            for kernel in itertools.chain.from_iterable(kernels or ()):
                if len(kernel) != self.dims or any(k % 2 == 0 for k in kernel):
                    raise ValueError(f"{name} holds {list(kernel)}, expected {self.dims} odd numbers")
        return self._within_limits()

    def _within_limits(self) -> "UNetSettings":
        fmaps = max(map(self.fmaps, range(self.levels)))
        if fmaps > _MOST_FMAPS:
            raise ValueError(f"{fmaps} feature maps in the coarsest level, expected at most {_MOST_FMAPS}")
        for axis in range(self.dims):
            context, step = (self.stem.kernel[axis], self.stem.factor[axis]) if self.stem else (0, 1)
            for level in range(self.levels):
                kernels = [*self.kernels_down(level), *(self.kernels_up(level) if level < self.levels - 1 else ())]
                context += step * sum(kernel[axis] - 1 for kernel in kernels)
                step *= self.downsample_factors[level][axis] if level < self.levels - 1 else 1
            if max(context, step) > _MOST_CONTEXT:
                raise ValueError(
                    f"a stride of {step} and a context of {context} voxels along axis {axis}, "
                    f"expected at most {_MOST_CONTEXT}"
                )
        kernels = [k for level in range(self.levels) for k in self.kernels_down(level)] + list(self.downsample_factors)
        kernels += [k for level in range(self.levels - 1) for k in self.kernels_up(level)]
        if (voxels := max(map(math.prod, [*kernels, *([self.stem.kernel] if self.stem else [])]))) > _MOST_IN_KERNEL:
            raise ValueError(f"a kernel of {voxels} voxels, expected at most {_MOST_IN_KERNEL}")
        return self


class UNet(nn.Module):
    """The U-Net without heads: features at the resolution of level 0. A ReLU follows each convolution.

    The input is `(N, in_channels, Z, Y, X)` float, the output `(N, settings.fmaps_up(0), Z', Y', X')` float. With valid
    padding and no stem, Z' = Z - context, see `emsuite.models.receptive_field`. 2-D networks have no Z. Source:
    funkelab/lsd_nm_experiments and mala's U-Net.

    Args:
        settings: the architecture.
        in_channels: channels of the input.
    """

    def __init__(self, settings: UNetSettings, in_channels: int = 1):
        super().__init__()
        self.settings = settings
        if settings.stem:
            around = [(k - f) // 2 for k, f in zip(settings.stem.kernel, settings.stem.factor, strict=True)]
            padding = 0 if settings.padding == "valid" else tuple(around)
            conv = _CONV[settings.dims]
            self._add("stem", conv(in_channels, settings.fmaps(0), settings.stem.kernel, settings.stem.factor, padding))
            in_channels = settings.fmaps(0)
        for level in range(settings.levels):
            width = in_channels if level == 0 else settings.fmaps(level - 1)
            if level > 0 and settings.downsample == "strided":
                factor = settings.downsample_factors[level - 1]
                self._add(f"down_{level - 1}_to_{level}", _CONV[settings.dims](width, width, factor, factor))
            self._add_level(f"layer_{level}_left", width, settings.fmaps(level), settings.kernels_down(level))
        for level in reversed(range(settings.levels - 1)):
            coarser = settings.fmaps_up(level + 1)
            factor = settings.downsample_factors[level]
            self.add_module(f"up_{level + 1}_to_{level}", Upsample(coarser, settings.fmaps(level), factor))
            width = 2 * settings.fmaps(level)  # skip connection and upsampled features
            self._add_level(f"layer_{level}_right", width, settings.fmaps_up(level), settings.kernels_up(level))

    def _add(self, name: str, layer: nn.Module) -> None:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # type: ignore[arg-type]
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.add_module(name, layer)

    def _add_level(self, name: str, width: int, fmaps: int, kernels: Sequence[Shape]) -> None:
        padding: int | str = 0 if self.settings.padding == "valid" else "same"
        bias = self.settings.norm == "none"
        for index, kernel in enumerate(kernels):
            self._add(f"{name}_{index}", _CONV[self.settings.dims](width, fmaps, kernel, padding=padding, bias=bias))
            if self.settings.norm == "batch":
                self.add_module(f"{name}_{index}_norm", _BATCH_NORM[self.settings.dims](fmaps, momentum=0.03))
            width = fmaps

    def _level(self, name: str, x: Tensor, kernels: Sequence[Shape], pads: bool, parts: int = 1) -> Tensor:
        for index in range(len(kernels)):
            layer = self.get_submodule(f"{name}_{index}")
            if pads:
                x = convolve_relu(layer, x, parts if index == 0 else 1)
                continue
            x = convolve(layer, x)
            if self.settings.norm == "batch":
                x = self.get_submodule(f"{name}_{index}_norm")(x)
            x = functional.relu(x)
        return x

    def _down(self, level: int, x: Tensor, pads: bool, skipped: Shape | None) -> tuple[Tensor, Tensor]:
        """Return what the skip connection of a level carries, cropped to `skipped` if given, and what goes down."""
        factor = self.settings.downsample_factors[level]
        if self.settings.downsample == "strided":
            layer = self.get_submodule(f"down_{level}_to_{level + 1}")
            return x, convolve_relu(layer, x) if pads else functional.relu(layer(x))
        if skipped is not None:
            return crop_and_pool(x, skipped, factor)
        return x, _MAX_POOL[self.settings.dims](x, factor)

    def _up(self, level: int, x: Tensor, skip: Tensor, pads: bool) -> Tensor:
        layer: Any = self.get_submodule(f"up_{level + 1}_to_{level}")
        if pads:
            return join(skip, layer.blocks(x, pads=True), layer.factor)
        x = functional.relu(layer(x))
        return torch.cat([centre_crop(skip, x.shape[2:]), x], dim=1)

    def _skipped(self, shape: Sequence[int]) -> list[Shape]:
        """Return the voxels that each level's skip connection carries for an input, the finest level first."""
        axes = [trace(self.settings, axis, n) for axis, n in enumerate(shape)]
        return list(zip(*(sizes[-2::-1] for sizes in axes if sizes), strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Return features at the resolution of level 0, with channels of zeros behind them where `aligns` says so."""
        settings, skips = self.settings, []
        pads = settings.norm == "none" and settings.stem is None and settings.padding == "valid" and aligns(x)
        skipped: Sequence[Shape | None] = self._skipped(x.shape[2:]) if pads else [None] * settings.levels
        if settings.stem:
            x = functional.relu(self.get_submodule("stem")(x))
        for level in range(settings.levels):
            x = self._level(f"layer_{level}_left", x, settings.kernels_down(level), pads)
            if level < settings.levels - 1:
                skip, x = self._down(level, x, pads, skipped[level])
                skips.append(skip)
        for level in reversed(range(settings.levels - 1)):
            x = self._up(level, x, skips.pop(), pads)
            x = self._level(f"layer_{level}_right", x, settings.kernels_up(level), pads, parts=2)
        return x


def trace(settings: UNetSettings, axis: int, n: int) -> list[int] | None:
    """Return the sizes along `axis` on the way up for an input of n voxels, None if the input does not fit.

    Returns:
        what comes up to each level, the coarsest first, then the output.
    """

    def shrink(kernels: Sequence[Shape]) -> int:
        return sum(kernel[axis] - 1 for kernel in kernels) if settings.padding == "valid" else 0

    skips, up, stem = list[int](), list[int](), settings.stem
    if stem:
        n -= stem.kernel[axis] - stem.factor[axis] if settings.padding == "valid" else 0
        if n <= 0 or n % stem.factor[axis]:
            return None
        n //= stem.factor[axis]
    for level in range(settings.levels):
        n -= shrink(settings.kernels_down(level))
        if level < settings.levels - 1:
            skips.append(n)
            factor = settings.downsample_factors[level][axis]
            if n <= 0 or n % factor:
                return None
            n //= factor
    for level in reversed(range(settings.levels - 1)):
        n *= settings.downsample_factors[level][axis]
        up.append(n)
        if n > skips[level]:
            return None
        n -= shrink(settings.kernels_up(level))
    n *= stem.factor[axis] if stem else 1
    return [*up, n] if n > 0 else None


def convolve(layer: nn.Module, x: Tensor) -> Tensor:
    """Return `layer(x)`, on a CPU in float32 if bfloat16 would make the gradient of the kernels garbage.

    This happens for padded inputs of several sections, but fewer than the kernel is deep: oneDNN leaves parts of the
    gradient unwritten and writes past its end (torch 2.13 with AVX-512 bf16).
    """
    thin = isinstance(layer, nn.Conv3d) and 1 < x.shape[2] < layer.kernel_size[0]
    if thin and x.device.type == "cpu" and torch.is_grad_enabled():
        with torch.autocast("cpu", enabled=False):
            return layer(x.float())
    return layer(x)


def head_layer(settings: UNetSettings, channels: int) -> nn.Module:
    """Return the layer from the U-Net's features to `channels` at raw's resolution.

    It is a 1x1x1 convolution, or the reverse of the stem.
    """
    if settings.stem:
        return Upsample(settings.fmaps_up(0), channels, settings.stem.factor)
    return _CONV[settings.dims](settings.fmaps_up(0), channels, 1)
