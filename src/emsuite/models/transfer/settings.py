"""The networks of domain transfer as settings: `generator` and `discriminator`, each told by its `kind`.

kind           what                                                           source
valid_unet     generator without padding, 3-D or 2-D                          janelia-flyem/transfer_em
resnet         generator of residual blocks                                   Zhu et al. 2017 (CycleGAN)
skip_unet      generator with a skip connection at every level                Isola et al. 2017 (pix2pix)
residual_unet  generator of residual blocks with squeeze and excitation       Lauenburg et al. 2023 (CySGAN)
unet           any U-Net of the suite as generator                            see `unet_settings`
valid          discriminator without padding, with or without a prior         janelia-flyem/transfer_em
patch          PatchGAN, a discriminator of overlapping patches               Isola et al. 2017 (pix2pix)
"""

import math
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from emsuite.common.arrays import Shape
from emsuite.common.settings import Settings
from emsuite.models.unet_settings import UNetSettings

Width = Annotated[int, Field(gt=0, le=4096)]
Norm = Literal["instance", "none"]
Dims = Literal[2, 3]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Margin = tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt]
Factor = tuple[Annotated[int, Field(ge=1, le=2)], ...]
Kernel = tuple[Literal[1, 3], ...]
_MARGIN = (
    "voxels at each border of a tile that a prediction leaves out, z y x; with less than the default, all that the "
    "padding reaches, tiles need blending"
)


class ValidUNetSettings(Settings):
    """transfer_em's generator: a U-Net of two steps down without padding and without norms.

    Width 8 is the published network: 129,480 parameters in 3-D, 38,040 in 2-D. Width 4 is the light one, a quarter of
    the parameters and of the arithmetic.
    """

    kind: Literal["valid_unet"]
    dims: Dims = Field(3, description="2: each section on its own")
    width: Width = Field(8, description="feature maps of the finest level; 4 is the light network")
    dropout: Dropout = Field(0.5, description="share of values set to 0 behind each transposed convolution")


class Padded(Settings):
    """What generators share whose output is as large as their input."""

    dims: Dims = Field(2, description="2: each section on its own")
    norm: Norm = Field("instance", description="instance: mean 0 and variance 1 of each channel of each sample")
    dropout: Dropout = Field(0.0, description="share of values set to 0; the published option is 0.5")
    tile_margin: Margin | None = Field(None, description=_MARGIN)

    @model_validator(mode="after")
    def _margin_of_sections(self) -> "Padded":
        if self.dims == 2 and self.tile_margin and self.tile_margin[0]:
            raise ValueError(f"tile_margin holds {list(self.tile_margin)}, expected 0 along z: sections stand alone")
        return self


class ResNetSettings(Padded):
    """CycleGAN's generator: two steps down, residual blocks, two steps up."""

    kind: Literal["resnet"]
    width: Width = Field(64, description="feature maps of the finest level")
    blocks: Annotated[int, Field(ge=0, le=64)] = Field(9, description="residual blocks; 6 for small images")
    downsample_factors: Annotated[tuple[Factor, ...], Field(min_length=1, max_length=6)] | None = Field(
        None, description="factor of each step down along each axis, 1 or 2 (default: two steps of 2 in all axes)"
    )
    upsample: Literal["transposed", "resize"] = Field(
        "transposed", description="resize: each voxel is repeated, then convolved, which leaves no checkerboard"
    )
    padding: Literal["reflect", "zeros"] = Field("reflect", description="of the first, the last and the blocks' layers")

    @property
    def factors(self) -> tuple[Shape, ...]:
        """The factor of each step down, one number per axis."""
        return self.downsample_factors or ((2,) * self.dims,) * 2

    @model_validator(mode="after")
    def _axes(self) -> "ResNetSettings":
        for factor in self.factors:
            if len(factor) != self.dims:
                raise ValueError(f"downsample_factors hold {list(factor)}, expected {self.dims} numbers, 1 or 2 each")
        return self


class SkipUNetSettings(Padded):
    """pix2pix's generator: steps down to a single voxel, a skip connection at every level."""

    kind: Literal["skip_unet"]
    width: Width = Field(64, description="feature maps of the finest level; the others have at most 8 times as many")
    levels: Annotated[int, Field(ge=2, le=12)] = Field(
        8, description="steps down, by 2 each: 8 is pix2pix's unet_256, 7 its unet_128"
    )


class ResidualUNetSettings(Settings):
    """CySGAN's generator: a residual U-Net with squeeze and excitation, UNet3D of PyTorch Connectomics; 3-D."""

    kind: Literal["residual_unet"]
    widths: Annotated[tuple[Annotated[Width, Field(multiple_of=8)], ...], Field(min_length=1, max_length=12)] = Field(
        (32, 64, 96, 128, 160), description="feature maps of each level, the finest first, multiples of 8"
    )
    downsample_factors: Annotated[tuple[Factor, ...], Field(max_length=11)] = Field(
        ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)), description="factor of each step down, 1 or 2 along z, y, x"
    )
    kernels: Annotated[tuple[Kernel, ...], Field(max_length=12)] = Field(
        ((1, 3, 3), (1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3)),
        description="kernel of the convolution into each level, 1 or 3 along z, y, x; those of the blocks are 1x3x3",
    )
    norm: Literal["group", "none"] = Field("group", description="group: of 8 groups of channels of each sample")
    squeeze: bool = Field(True, description="squeeze and excitation in each block")
    non_local: bool = Field(
        False, description="UNetPlus3D: the coarsest level sees all of itself, and is added at all others"
    )
    activation: Literal["elu", "leaky_relu", "relu"] = Field("elu", description="leaky_relu has the slope 0.2")
    tile_margin: Margin | None = Field(None, description=_MARGIN)

    @property
    def stride(self) -> Shape:
        """The product of all factors, z y x."""
        z, y, x = (math.prod(factor[axis] for factor in self.downsample_factors) for axis in range(3))
        return z, y, x

    @property
    def is_local(self) -> bool:
        """See `Generator.is_local`."""
        return self.norm == "none" and not self.squeeze and not self.non_local

    @model_validator(mode="after")
    def _levels(self) -> "ResidualUNetSettings":
        for name, found, expected in (
            ("downsample_factors", self.downsample_factors, len(self.widths) - 1),
            ("kernels", self.kernels, len(self.widths)),
        ):
            if len(found) != expected:
                raise ValueError(f"{name} list {len(found)}, expected {expected} for {len(self.widths)} widths")
            if any(len(sizes) != 3 for sizes in found):
                raise ValueError(f"{name}: expected 3 numbers each, along z, y, x")
        return self


class UNetGeneratorSettings(Settings):
    """Any U-Net of the suite as generator. It begins with the U-Net's own random weights."""

    kind: Literal["unet"]
    unet: UNetSettings

    @model_validator(mode="after")
    def _three_axes(self) -> "UNetGeneratorSettings":
        if self.unet.dims != 3 or self.unet.output != "image":
            raise ValueError("unet: expected factors of 3 axes and the output image; 2-D is 1 along z")
        return self


class Prior(Settings):
    """A trained network of the suite whose features a discriminator reads as well. Its weights do not change."""

    network: str = Field(min_length=1, description="folder of the trained network, as seen from this network's")
    iteration: PositiveInt | None = Field(
        None, description="its checkpoint; that of its `training.iterations` if left out"
    )
    layer: str = Field(min_length=1, description="name of the module whose output is read, as unet.layer_2_left_1")
    channels: Width = Field(32, description="channels of these features")


class ValidDiscriminatorSettings(Settings):
    """transfer_em's discriminator: one logit per 40^3 voxels, every 8 voxels, without padding and without norms.

    Width 8 is the published network: 181,369 parameters in 3-D, 209,017 with a prior of 32 channels.
    """

    kind: Literal["valid"]
    dims: Dims = Field(3, description="2: each section on its own")
    width: Width = Field(8, description="feature maps of the finest level; 4 is the light network")
    prior: Prior | None = Field(None, description="a frozen network whose features are read beside (default: none)")


class PatchSettings(Settings):
    """PatchGAN: one logit per overlapping patch, 70 pixels wide with 3 layers."""

    kind: Literal["patch"]
    dims: Dims = Field(2, description="2: each section on its own")
    width: Width = Field(64, description="feature maps of the first layer; the others have at most 8 times as many")
    layers: Annotated[int, Field(ge=1, le=8)] = Field(3, description="strided layers")
    norm: Norm = Field("instance", description="instance: mean 0 and variance 1 of each channel of each sample")


GeneratorSettings = Annotated[
    ValidUNetSettings | ResNetSettings | SkipUNetSettings | ResidualUNetSettings | UNetGeneratorSettings,
    Field(discriminator="kind"),
]
DiscriminatorSettings = Annotated[ValidDiscriminatorSettings | PatchSettings, Field(discriminator="kind")]
