"""What of a same-padded U-Net has to be computed to get the centre of its output right, and no more.

    input     |<----------------- n ------------------>|       all of it is needed on the way down
    level 0       . . . . |<- kept and a halo ->| . . . .       on the way up only what the centre is made of
    level 1         . . |<-- its half and a halo -->| . .       a halo: what convolutions there spoil at the cut

A tile of a same network is cropped to its centre, since zeros leak in from its border. Of FIB-25's `small` 192 of 416
voxels are kept, a tenth of the volume: the way up then costs a tenth as well, with the same values.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from emsuite.common.arrays import Shape
from emsuite.models.unet import UNet, UNetSettings, centre_crop


@contextmanager
def trimmed(unet: UNet, input_shape: Sequence[int], kept: Sequence[int]) -> Iterator[None]:
    """Inside, `unet` yields of an input of that shape features that are right in the `kept` central voxels of raw.

    Valid networks compute nothing else anyway, and stay as they are.
    """
    if unet.settings.padding == "valid":
        yield
        return
    hooks = [
        unet.get_submodule(f"up_{level + 1}_to_{level}").register_forward_pre_hook(_Crop(shape))
        for level, shape in enumerate(coarse_shapes(unet.settings, input_shape, kept))
    ]
    try:
        yield  # skips are cropped to what comes up to meet them, see `UNet.forward`
    finally:
        for hook in hooks:
            hook.remove()


def coarse_shapes(settings: UNetSettings, input_shape: Sequence[int], kept: Sequence[int]) -> list[Shape]:
    """What has to come up from level 1, 2, ... of a same network, in voxels of that level, centred."""
    axes = [_along(settings, axis, n, inner) for axis, (n, inner) in enumerate(zip(input_shape, kept, strict=True))]
    return list(zip(*axes, strict=True))


def _along(settings: UNetSettings, axis: int, n: int, kept: int) -> list[int]:
    scale = settings.stem.factor[axis] if settings.stem else 1
    total, needed, shapes = n // scale, -(-kept // scale), []
    for level, factor in enumerate(settings.downsample_factors):
        needed += sum(kernel[axis] - 1 for kernel in settings.kernels_up(level))
        total //= factor[axis]
        needed = min(total, -(-needed // factor[axis]))
        needed += (total - needed) % 2  # as much is cut from either side
        shapes.append(needed)
    return shapes


class _Crop:
    """Crops what goes into a module."""

    def __init__(self, shape: Shape):
        self.shape = shape

    def __call__(self, _module: nn.Module, given: tuple[Any, ...]) -> tuple[Tensor]:
        return (centre_crop(given[0], self.shape),)
