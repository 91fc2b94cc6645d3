"""The one U-Net: 2-D or 3-D, isotropic or not, valid or same convolutions (Ronneberger et al. 2015; Funke et al. 2018).

    level 0   left_0 left_1 ------------- crop ------------> [skip, up] right_0 right_1   -> num_fmaps_out
                  | down                                         ^ up_1_to_0
    level 1   left_0 left_1 --- crop ---> [skip, up] right_0 right_1
                  | down                      ^ up_2_to_1
    level 2   left_0 left_1 ------------------+

Parameters have the names of the published checkpoints, without their scope: `layer_0_left_0`, `up_1_to_0`,
`layer_0_right_1` (funkelab/lsd_nm_experiments, mknet). Norms and shortcuts are named after their layer:
`layer_0_left_0_norm`, `layer_0_left_shortcut` (He et al. 2016).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from emsuite.common import device
from emsuite.common.arrays import Shape
from emsuite.models.aligned import aligns, convolve_relu
from emsuite.models.crop import centre_crop, crop_and_pool, join
from emsuite.models.layers import Convolution2d, Convolution3d, average_pool, elu
from emsuite.models.unet_settings import UNetSettings, trace
from emsuite.models.upsample import POINTWISE, Interpolate, Upsample

_CONV: dict[int, Callable[..., nn.Module]] = {2: Convolution2d, 3: Convolution3d}
_BATCH_NORM: dict[int, Callable[..., nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOL: dict[tuple[str, int], Callable[..., Tensor]] = {
    ("max_pool", 2): functional.max_pool2d,
    ("max_pool", 3): functional.max_pool3d,
    ("average_pool", 2): average_pool,
    ("average_pool", 3): average_pool,
}
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "elu": elu,
    "gelu": functional.gelu,
}
_USUAL = {"norm": "none", "stem": None, "padding": "valid", "upsample": "transposed", "skip": "concatenate",
          "activation": "relu", "order": "conv_norm_activation", "dropout": 0.0, "residual": "none",
          "output": "image"}  # fmt: skip
"""The settings of networks that can run with padded channels; `max_pool` and `strided` can both."""


class UNet(nn.Module):
    """The U-Net without heads: features at the resolution of level 0. An activation follows each convolution.

    The input is `(N, in_channels, Z, Y, X)` float, the output `(N, settings.fmaps_last, Z', Y', X')` float. With valid
    padding and no stem, Z' = Z - context, see `emsuite.models.receptive_field`. 2-D networks have no Z. Source:
    funkelab/lsd_nm_experiments and mala's U-Net.

    Args:
        settings: the architecture.
        in_channels: channels of the input.
    """

    def __init__(self, settings: UNetSettings, in_channels: int = 1):
        super().__init__()
        self.settings = settings
        self._activate = _ACTIVATIONS[settings.activation]
        self._has_padded_channels = settings.downsample != "average_pool" and all(
            getattr(settings, key) == value for key, value in _USUAL.items()
        )
        self._norm_relu_follows = (settings.norm, settings.activation, settings.order) == (
            "batch", "relu", "conv_norm_activation")  # fmt: skip
        conv = _CONV[settings.dims]
        if settings.stem:
            sizes = zip(settings.stem.kernel, settings.stem.factor, settings.pads, strict=True)
            padding = tuple((k - f) // 2 if pads else 0 for k, f, pads in sizes)
            self._add("stem", conv(in_channels, settings.fmaps(0), settings.stem.kernel, settings.stem.factor, padding))
            in_channels = settings.fmaps(0)
        for level in range(settings.levels):
            width = in_channels if level == 0 else settings.fmaps(level - 1)
            if level > 0 and settings.downsample == "strided":
                factor = settings.downsample_factors[level - 1]
                self._add(f"down_{level - 1}_to_{level}", conv(width, width, factor, factor))
            self._add_level(f"layer_{level}_left", width, settings.fmaps(level), settings.kernels_down(level))
        for level in reversed(range(settings.levels - 1 if settings.output == "image" else 0)):
            coarser, fmaps = settings.fmaps_up(level + 1), settings.fmaps(level)
            self.add_module(f"up_{level + 1}_to_{level}", _upsampling(settings, level, coarser, fmaps))
            width = 2 * fmaps if settings.skip == "concatenate" else fmaps
            self._add_level(f"layer_{level}_right", width, settings.fmaps_up(level), settings.kernels_up(level))

    def _add(self, name: str, layer: nn.Module) -> None:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # type: ignore[arg-type]
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.add_module(name, layer)

    def _add_level(self, name: str, width: int, fmaps: int, kernels: Sequence[Shape]) -> None:
        settings = self.settings
        conv, norm = _CONV[settings.dims], _BATCH_NORM[settings.dims]
        if settings.residual != "none" and (fmaps < width or (settings.residual == "projected" and fmaps != width)):
            self._add(f"{name}_shortcut", POINTWISE[settings.dims](width, fmaps, 1))
        bias = settings.norm == "none" or settings.order != "conv_norm_activation"
        for index, kernel in enumerate(kernels):
            padding = tuple((k - 1) // 2 if pads else 0 for k, pads in zip(kernel, settings.pads, strict=True))
            same = "same" if settings.padding == "same" else padding
            self._add(f"{name}_{index}", conv(width, fmaps, kernel, padding=same, bias=bias))
            if settings.norm == "batch":
                normalized = width if settings.order == "norm_activation_conv" else fmaps
                self.add_module(f"{name}_{index}_norm", norm(normalized, momentum=0.03))
            width = fmaps

    def _level(self, name: str, x: Tensor, kernels: Sequence[Shape], pads: bool, parts: int = 1) -> Tensor:
        if pads:
            for index in range(len(kernels)):
                x = convolve_relu(self.get_submodule(f"{name}_{index}"), x, parts if index == 0 else 1)
            return x
        shortcut = None if self.settings.residual == "none" else self._shortcut(name, x, kernels)
        for index in range(len(kernels)):
            x = self._convolved(f"{name}_{index}", x, shortcut if index == len(kernels) - 1 else None)
        return x

    def _convolved(self, name: str, x: Tensor, shortcut: Tensor | None) -> Tensor:
        """Return the result of one convolution with norm and activation; the shortcut goes in before the last of them.

        Where a convolution or a norm is the last, the shortcut is added behind it.
        """
        steps, own = self.settings.order.split("_"), False
        for number, step in enumerate(steps):
            if step == "conv":
                own = True
                x = self.get_submodule(name)(x)
                if shortcut is None and self._norm_relu_follows and norms_on_gpu(x, self.training):
                    x = norm_relu(self.get_submodule(f"{name}_norm"), x)
                    break
            elif step == "norm" and self.settings.norm == "batch":
                own = True
                x = self.get_submodule(f"{name}_norm")(x)
            elif step == "activation":
                if shortcut is not None and number == len(steps) - 1:
                    x, shortcut = x + shortcut, None
                x = functional.relu_(x) if own and self.settings.activation == "relu" else self._activate(x)
        x = x if shortcut is None else x + shortcut
        return functional.dropout(x, self.settings.dropout, self.training) if self.settings.dropout else x

    def _shortcut(self, name: str, x: Tensor, kernels: Sequence[Shape]) -> Tensor:
        """Return the input of a level, cropped and with as many channels as its output."""
        lost = [0 if pads else sum(k[axis] - 1 for k in kernels) for axis, pads in enumerate(self.settings.pads)]
        x = centre_crop(x, [n - less for n, less in zip(x.shape[2:], lost, strict=True)])
        if f"{name}_shortcut" in self._modules:
            return self.get_submodule(f"{name}_shortcut")(x)
        last: Any = self.get_submodule(f"{name}_{len(kernels) - 1}")
        more = last.out_channels - x.shape[1]
        return functional.pad(x, (0, 0) * (x.ndim - 2) + (more // 2, more - more // 2)) if more else x

    def _down(self, level: int, x: Tensor, pads: bool, skipped: Shape | None) -> tuple[Tensor, Tensor]:
        """Return what the skip connection of a level carries, cropped to `skipped` if given, and what goes down."""
        factor = self.settings.downsample_factors[level]
        if self.settings.downsample == "strided":
            layer = self.get_submodule(f"down_{level}_to_{level + 1}")
            return x, convolve_relu(layer, x) if pads else self._activate(layer(x))
        if skipped is not None:
            return crop_and_pool(x, skipped, factor)
        device = "cpu" if x.is_meta else x.device.type  # shapes alone have no autocast
        with torch.autocast(device, enabled=False):  # maxima need no float32, which a CPU would take
            return x, _POOL[self.settings.downsample, self.settings.dims](x, factor)

    def _up(self, level: int, x: Tensor, skip: Tensor, pads: bool) -> Tensor:
        layer: Any = self.get_submodule(f"up_{level + 1}_to_{level}")
        if pads:
            return join(skip, layer.blocks(x, pads=True), layer.factor)
        x = self._activate(layer(x))
        skip = centre_crop(skip, x.shape[2:])
        return torch.cat([skip, x], dim=1) if self.settings.skip == "concatenate" else skip + x

    def _skipped(self, shape: Sequence[int]) -> list[Shape]:
        """Return the voxels that each level's skip connection carries for an input, the finest level first."""
        axes = [trace(self.settings, axis, n) for axis, n in enumerate(shape)]
        return list(zip(*(sizes[-2::-1] for sizes in axes if sizes), strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Return features at the resolution of level 0, with channels of zeros behind them where `aligns` says so.

        A network of vectors returns the mean of its coarsest features, one voxel.
        """
        settings, skips = self.settings, []
        pads = self._has_padded_channels and aligns(x)
        skipped: Sequence[Shape | None] = self._skipped(x.shape[2:]) if pads else [None] * settings.levels
        if settings.stem:
            x = self._activate(self.get_submodule("stem")(x))
        for level in range(settings.levels):
            x = self._level(f"layer_{level}_left", x, settings.kernels_down(level), pads)
            if level < settings.levels - 1:
                skip, x = self._down(level, x, pads, skipped[level])
                skips.append(skip)
        if settings.output == "vector":
            return x.mean(tuple(range(2, x.ndim)), keepdim=True)
        for level in reversed(range(settings.levels - 1)):
            x = self._up(level, x, skips.pop(), pads)
            x = self._level(f"layer_{level}_right", x, settings.kernels_up(level), pads, parts=2)
        return x


def _upsampling(settings: UNetSettings, level: int, coarser: int, fmaps: int) -> nn.Module:
    """Return the layer that brings `coarser` channels up to `fmaps` channels of `level`."""
    factor = settings.downsample_factors[level]
    if settings.upsample == "transposed":
        return Upsample(coarser, fmaps, factor)
    lost = [settings.lost_up(level, axis) for axis in range(settings.dims)]
    return Interpolate(coarser, fmaps, factor, linear=settings.upsample == "bilinear", lost=lost)


def norms_on_gpu(x: Tensor, training: bool) -> bool:
    """Return whether the kernels of `norm_triton` normalise features (N, C, Z, Y, X): in 16 bits on a GPU.

    Without training they have no gradient.
    """
    if x.ndim != 5 or x.dtype == torch.float32 or torch.compiler.is_compiling() or not device.runs_triton(x):
        return False
    return training or not torch.is_grad_enabled()


def norm_relu(layer: nn.Module, x: Tensor) -> Tensor:
    """Return `relu(layer(x))` by the kernels of `norm_triton`."""
    from emsuite.models import norm_triton

    assert isinstance(layer, nn.BatchNorm3d)
    return norm_triton.norm_relu(layer, x)


def head_layer(settings: UNetSettings, channels: int) -> nn.Module:
    """Return the layer from the U-Net's features to `channels` at raw's resolution.

    It is a 1x1x1 convolution, or the reverse of the stem.
    """
    if settings.stem and settings.output == "image":
        return Upsample(settings.fmaps_last, channels, settings.stem.factor)
    return POINTWISE[settings.dims](settings.fmaps_last, channels, 1)
