"""Crop the decoder of a same-padded U-Net: compute only what the centre of its output depends on.

    input     |<----------------- n ------------------>|       all of it is needed on the way down
    level 0       . . . . |<- kept and a halo ->| . . . .       on the way up only what the centre is made of
    level 1         . . |<-- its half and a halo -->| . .       a halo: the voxels that convolutions spoil at the cut

A tile of a same-padded network is cropped to its centre, since zeros leak in from its border. Of FIB-25's `small` 192
of 416 voxels are kept, a tenth of the volume: the way up then costs a tenth as well, with the same values.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from emsuite.common.arrays import Shape
from emsuite.models.crop import centre_crop
from emsuite.models.unet import UNet
from emsuite.models.unet_settings import UNetSettings, trace


@contextmanager
def trimmed(unet: UNet, input_shape: Sequence[int], kept: Sequence[int]) -> Iterator[None]:
    """Crop the decoder of `unet` within the block. Its features are right in the `kept` central voxels alone.

    Valid networks compute no other voxels anyway, and stay as they are.

    Args:
        unet: the network.
        input_shape: voxels of its input.
        kept: voxels of raw in the centre.
    """
    if not any(unet.settings.pads) or unet.settings.output == "vector":
        yield
        return
    hooks = [
        unet.get_submodule(f"up_{level + 1}_to_{level}").register_forward_pre_hook(_Crop(shape))
        for level, shape in enumerate(coarse_shapes(unet.settings, input_shape, kept))
    ]
    try:
        yield  # `UNet.forward` crops skips to the features that come up to meet them
    finally:
        for hook in hooks:
            hook.remove()


def coarse_shapes(settings: UNetSettings, input_shape: Sequence[int], kept: Sequence[int]) -> list[Shape]:
    """Return the central voxels that have to come up from level 1, 2, ... of a same-padded network, by level.

    Along an axis without padding, all that there are come up.
    """
    axes = [_along(settings, axis, n, inner) for axis, (n, inner) in enumerate(zip(input_shape, kept, strict=True))]
    return list(zip(*axes, strict=True))


def _along(settings: UNetSettings, axis: int, n: int, kept: int) -> list[int]:
    if not settings.pads[axis]:
        up = reversed((trace(settings, axis, n) or [])[:-1])
        factors = [factor[axis] for factor in settings.downsample_factors]
        return [(m + settings.lost_up(level, axis)) // factors[level] for level, m in enumerate(up)]
    scale = settings.stem.factor[axis] if settings.stem else 1
    total, needed, shapes = n // scale, -(-kept // scale), []
    for level, factor in enumerate(settings.downsample_factors):
        needed += sum(kernel[axis] - 1 for kernel in settings.kernels_up(level))
        if settings.upsample == "bilinear":
            needed += 2 * (factor[axis] // 2)  # at the cut, no second voxel to interpolate with
        total //= factor[axis]
        needed = min(total, -(-needed // factor[axis]))
        needed += (total - needed) % 2  # so that both sides are cut by the same number
        shapes.append(needed)
    return shapes


class _Crop:
    """Crops the input of a module."""

    def __init__(self, shape: Shape):
        self.shape = shape

    def __call__(self, _module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor]:
        return (centre_crop(inputs[0], self.shape),)
