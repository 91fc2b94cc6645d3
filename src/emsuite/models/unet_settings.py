"""The settings of the one U-Net, `unet:` in network.yaml, and the sizes that pass through it.

2-D               kernels 1x3x3, factors 1x2x2                                       (1, y, x) -> (1, y, x)
stack to slice    kernels 3x3x3 as long as there is depth, `padding: same_in_plane`   (5, y, x) -> (1, y, x)
stack to stack    kernels 3x3x3, factors 2x2x2, `padding: same`                       (8, y, x) -> (8, y, x)
image to vector   `output: vector`                                                    (z, y, x) -> (1, 1, 1)
"""

import itertools
import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from emsuite.common.arrays import Shape
from emsuite.common.settings import Settings

_MOST_FMAPS = 2**16
_MOST_CONTEXT = 4096
"""Voxels along an axis: of the stride, and of all kernels of a network together."""
_MOST_IN_KERNEL = 10_000

Fmaps = Annotated[int, Field(gt=0, le=_MOST_FMAPS)]
Sizes = tuple[PositiveInt, ...]
Kernels = Annotated[tuple[Sizes, ...], Field(min_length=1, max_length=100)]


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
    padding: Literal["valid", "same", "same_in_plane"] = Field(
        "valid", description="valid: the output shrinks; same: zeros pad the input; same_in_plane: in y and x alone"
    )
    downsample: Literal["max_pool", "average_pool", "strided"] = Field(
        "max_pool", description="strided: a convolution, kernel = stride"
    )
    upsample: Literal["transposed", "repeat", "nearest", "bilinear"] = Field(
        "transposed",
        description="transposed: a convolution, kernel = stride; else a 1x1x1 convolution, then each voxel is repeated "
        "(repeat and nearest are one), or values are linear between voxels, along z too (bilinear)",
    )
    skip: Literal["concatenate", "add"] = Field("concatenate", description="how features from the way down join")
    stem: Stem | None = Field(None, description="a strided convolution before level 0 (default: raw enters level 0)")
    norm: Literal["none", "batch"] = Field(
        "none", description="batch: batch normalisation of each convolution of a level"
    )
    order: Literal["conv_norm_activation", "conv_activation_norm", "norm_activation_conv"] = Field(
        "conv_norm_activation", description="of the steps around each convolution of a level"
    )
    activation: Literal["relu", "leaky_relu", "elu", "gelu"] = "relu"
    dropout: float = Field(0.0, ge=0, lt=0.7, description="share of values set to 0 behind each convolution of a level")
    residual: Literal["none", "padded", "projected"] = Field(
        "none",
        description="a shortcut around each level, where channels grow padded with zeros or projected by a 1x1x1 "
        "convolution; where they shrink, projected",
    )
    final_activation: Literal["none", "relu", "sigmoid", "tanh", "softmax"] = Field(
        "none", description="behind the last convolution, for heads without an activation of their own"
    )
    output: Literal["image", "vector"] = Field(
        "image", description="vector: no way up; the mean of the coarsest level's features, one voxel for all"
    )

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self.downsample_factors[0])

    @property
    def pads(self) -> tuple[bool, ...]:
        """Whether zeros pad the input of convolutions, by axis."""
        inside = self.padding != "valid"
        return (self.padding == "same", *(inside,) * (self.dims - 1))

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

    @property
    def fmaps_last(self) -> int:
        """Number of feature maps that the heads read."""
        return self.fmaps_up(0) if self.output == "image" else self.fmaps(self.levels - 1)

    def fmaps_up(self, level: int) -> int:
        """Return the number of feature maps of `level` on the way up."""
        return self.num_fmaps_out if level == 0 and self.num_fmaps_out else self.fmaps(level)

    def kernels_down(self, level: int) -> tuple[Shape, ...]:
        """Return the kernels of `level` on the way down."""
        return self.kernel_sizes_down[level] if self.kernel_sizes_down else ((3,) * self.dims,) * 2

    def kernels_up(self, level: int) -> tuple[Shape, ...]:
        """Return the kernels of `level` on the way up."""
        return self.kernel_sizes_up[level] if self.kernel_sizes_up else ((3,) * self.dims,) * 2

    def lost_up(self, level: int, axis: int) -> int:
        """Return the voxels that the upsampling to `level` loses: without padding, those next to no second voxel."""
        lost = self.upsample == "bilinear" and not self.pads[axis]
        return 2 * (self.downsample_factors[level][axis] // 2) if lost else 0

    @model_validator(mode="after")
    def _consistent(self) -> "UNetSettings":
        lengths = {len(factor) for factor in (*self.downsample_factors, *([self.stem.factor] if self.stem else []))}
        if len(lengths) != 1 or not lengths <= {2, 3}:
            raise ValueError("downsample_factors must be at least one factor, all of 2 or all of 3 axes")
        if self.padding == "same_in_plane" and self.dims != 3:
            raise ValueError("padding same_in_plane is for factors of 3 axes, expected same or valid")
        if self.output == "vector" and (self.kernel_sizes_up or self.num_fmaps_out):
            raise ValueError("output vector has no way up, expected neither kernel_sizes_up nor num_fmaps_out")
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


def trace(settings: UNetSettings, axis: int, n: int) -> list[int] | None:
    """Return the sizes along `axis` on the way up for an input of n voxels, None if the input does not fit.

    Returns:
        what comes up to each level, the coarsest first, then the output.
    """
    pads = settings.pads[axis]

    def shrink(kernels: Sequence[Shape]) -> int:
        return 0 if pads else sum(kernel[axis] - 1 for kernel in kernels)

    skips, up, stem = list[int](), list[int](), settings.stem
    if stem:
        n -= 0 if pads else stem.kernel[axis] - stem.factor[axis]
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
    if settings.output == "vector":
        return [1] if n > 0 else None
    for level in reversed(range(settings.levels - 1)):
        n = n * settings.downsample_factors[level][axis] - settings.lost_up(level, axis)
        up.append(n)
        if n > skips[level]:
            return None
        n -= shrink(settings.kernels_up(level))
    n *= stem.factor[axis] if stem else 1
    return [*up, n] if n > 0 else None
