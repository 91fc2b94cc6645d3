"""Upsampling: transposed convolution with kernel = stride, or convolution of single voxels and interpolation.

A transposed convolution is one matrix product and a rearrangement of voxels:

    each voxel of the coarse grid  ->  its own block of `factor` voxels of the fine grid

PyTorch's transposed convolution gives the same numbers, but takes 3 to 10 times as long on a CPU.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from emsuite.models.aligned import aligned
from emsuite.models.crop import arrange, centre_crop


class Upsample(nn.Module):
    """Upsample `(N, in, *shape)` float to `(N, out, *shape * factor)` float, with any number of axes.

    The parameters are those of `nn.ConvTranspose3d`: weight `(in, out, *factor)`, bias `(out,)`.
    """

    def __init__(self, in_channels: int, out_channels: int, factor: Sequence[int]):
        super().__init__()
        self.factor = tuple(factor)
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels, *self.factor))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        # each output voxel is a sum over the input's channels only, so the factor does not enter the deviation
        nn.init.normal_(self.weight, std=(2.0 / in_channels) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return the upsampled features, channels last in memory."""
        return arrange(self.blocks(x), self.factor)

    def blocks(self, x: Tensor, pads: bool = False) -> Tensor:
        """Return the upsampled features block by block: `(N, *shape, voxels of a block * out)`.

        Args:
            x: as for `forward`; its channels may be padded with zeros.
            pads: whether to pad the channels of the result, as `emsuite.models.aligned` does.
        """
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        behind = (0, aligned(len(bias)) - len(bias)) if pads else (0, 0)
        if pads:
            weight = functional.pad(weight, (0, 0) * len(self.factor) + behind + (0, x.shape[1] - len(weight)))
            bias = functional.pad(bias, behind)
        # weight as (block voxels * out, in): the voxels of a block first, then their channels
        rows = weight.flatten(2).permute(2, 1, 0).flatten(0, 1)
        return functional.linear(x.movedim(1, -1), rows, bias.repeat(len(rows) // len(bias)))


class Interpolate(nn.Module):
    """Upsample `(N, in, *shape)` float to `(N, out, *shape * factor - lost)` float: a 1x1x1 convolution, then values.

    A fine voxel has the value of the coarse voxel that it lies in, or one that is linear between the centres of the
    two nearest ones along each axis. At the border, where there is one alone, it has the value of that one. All
    arithmetic is sums of slices, so that gradients are the same bytes on a GPU each time; torch's are not.
    """

    def __init__(
        self, in_channels: int, out_channels: int, factor: Sequence[int], linear: bool, lost: Sequence[int] = ()
    ):
        """Build the layer.

        Args:
            in_channels: channels of the input.
            out_channels: channels of the output.
            factor: fine voxels per coarse voxel, by axis.
            linear: whether values are linear between voxels.
            lost: fine voxels to cut off, half on each side, by axis.
        """
        super().__init__()
        self.factor, self.linear, self.lost = tuple(factor), linear, tuple(lost) or (0,) * len(factor)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *(1,) * len(self.factor)))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return the upsampled features, channels last in memory."""
        x = pointwise(x, self.weight, self.bias).movedim(1, -1)  # stacks keep the order of axes, so channels stay last
        for axis, factor in enumerate(self.factor, start=1):
            if factor > 1:
                x = _linear(x, axis, factor) if self.linear else repeated(x, axis, factor)
        x = x.movedim(-1, 1)
        return centre_crop(x, [n - less for n, less in zip(x.shape[2:], self.lost, strict=True)])


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the convolution of `x` (N, C, *shape) float with kernels of one voxel (out, C, *ones).

    On a CPU it is a matrix product: torch's convolution takes three times as long forward and backward, for it gives up
    the order of channels in memory.
    """
    if x.device.type == "cpu":
        return functional.linear(x.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)
    return (functional.conv3d if x.ndim == 5 else functional.conv2d)(x, weight, bias)


class _Pointwise2d(nn.Conv2d):
    """A convolution with kernels of one pixel, by `pointwise`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of `x` (N, in, Y, X) float."""
        return pointwise(x, self.weight, self.bias)


class _Pointwise3d(nn.Conv3d):
    """A convolution with kernels of one voxel, by `pointwise`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of `x` (N, in, Z, Y, X) float."""
        return pointwise(x, self.weight, self.bias)


POINTWISE: dict[int, Callable[..., nn.Module]] = {2: _Pointwise2d, 3: _Pointwise3d}
"""Layers of kernels of one voxel, by the number of axes."""


def repeated(x: Tensor, axis: int, factor: int) -> Tensor:
    """Return `x` with each voxel `factor` times in a row along `axis`."""
    return torch.stack([x] * factor, axis + 1).flatten(axis, axis + 1)


def _linear(x: Tensor, axis: int, factor: int) -> Tensor:
    return _Linear.apply(x, axis, factor).flatten(axis, axis + 1)


class _Linear(torch.autograd.Function):
    """Values that are linear along one axis: `(..., n, ...)` to `(..., n, factor, ...)`.

    The gradient is a sum of slices in place: torch's own would fill a tensor with zeros for each slice.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: int, factor: int) -> Tensor:
        """Return the fine values of each coarse one."""
        ctx.axis, ctx.factor, n = axis, factor, x.shape[axis]
        fine = x.new_empty([*x.shape[: axis + 1], factor, *x.shape[axis + 1 :]])
        for place, part in zip(_places(factor), fine.unbind(axis + 1), strict=True):
            inner, outer, neighbor = (1, 0, 0) if place < 0 else (0, n - 1, 1)
            nearest, next_one = x.narrow(axis, inner, n - 1), x.narrow(axis, neighbor, n - 1)
            torch.lerp(nearest, next_one, abs(place), out=part.narrow(axis, inner, n - 1))
            part.narrow(axis, outer, 1).copy_(x.narrow(axis, outer, 1))
        return fine

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the coarse values."""
        axis, parts = ctx.axis, gradients[0].unbind(ctx.axis + 1)
        places, n = _places(ctx.factor), parts[0].shape[axis]
        total = parts[0] * (1 - abs(places[0]))
        for part, place in zip(parts[1:], places[1:], strict=True):
            total.add_(part, alpha=1 - abs(place))
        for part, place in zip(parts, places, strict=True):
            inner, outer = (1, 0) if place < 0 else (0, n - 1)
            total.narrow(axis, 1 - inner, n - 1).add_(part.narrow(axis, inner, n - 1), alpha=abs(place))
            total.narrow(axis, outer, 1).add_(part.narrow(axis, outer, 1), alpha=abs(place))
        return total, None, None


def _places(factor: int) -> list[float]:
    """Return the places of fine voxels, seen from the centre of their coarse voxel, in coarse voxels."""
    return [(phase + 0.5) / factor - 0.5 for phase in range(factor)]
