"""Layers that the networks of domain transfer share: 2-D or 3-D convolutions, norms, padding, first weights.

A 2-D network reads (N, C, Z, Y, X) as well: `as_images` puts the sections into the batch, `as_volume` takes them out.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from emsuite.models.layers import Convolution2d, Convolution3d, Transposed2d, Transposed3d, is_reduced

_DEVIATION = 0.02
"""Of the first weights (Radford et al. 2016, DCGAN)."""
_FEW = 20_480
"""Channels times voxels along z and y."""
Sizes = int | Sequence[int]


class _Halved(Convolution3d):
    """A 3-D convolution with a fast way for a single small sample on a CPU: its two halves as a batch of two."""

    def forward(self, x: Tensor) -> Tensor:
        """Return what `Convolution3d` returns, see there."""
        kernel, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
        depth = (x.shape[2] + 2 * padding - kernel) // stride + 1
        if depth < 2 or not _is_left_to_loops(x, self.kernel_size):
            return super().forward(x)
        x = functional.pad(x, (0, 0, 0, 0, padding, padding)) if padding else x
        half = -(-depth // 2)
        read, begin = stride * (half - 1) + kernel, stride * (depth - half)
        halves = torch.cat([x.narrow(2, 0, read), x.narrow(2, begin, read)])
        y = functional.conv3d(halves, self.weight, self.bias, self.stride, (0, *map(int, self.padding[1:])))
        return torch.cat([y[:1], y[1:].narrow(2, 2 * half - depth, depth - half)], 2)


def _is_left_to_loops(x: Tensor, kernel: Sequence[int]) -> bool:
    """Return whether torch would compute a convolution by its own loops, several times slower than by oneDNN.

    It does so for one sample of few voxels and kernels up to 3, in float32 (`ConvParams::use_mkldnn`, torch 2.13).
    """
    if x.is_cuda or len(x) != 1 or is_reduced(x) or torch.compiler.is_compiling():
        return False
    return x.shape[1] * x.shape[2] * x.shape[3] <= _FEW and min(kernel[1:]) <= 3


def convolution(dims: int, in_channels: int, out_channels: int, kernel: Sizes, *, stride: Sizes = 1,
                padding: Sizes = 0, bias: bool = True) -> nn.Module:  # fmt: skip
    """Return a convolution over the last `dims` axes."""
    kind = _Halved if dims == 3 else Convolution2d
    k, s, p = (_per_axis(dims, sizes) for sizes in (kernel, stride, padding))
    return kind(in_channels, out_channels, k, s, p, bias=bias)  # type: ignore[arg-type]


def transposed(dims: int, in_channels: int, out_channels: int, kernel: int, *, stride: Sizes = 2, padding: Sizes = 1,
               more: Sizes = 0, bias: bool = True) -> nn.Module:  # fmt: skip
    """Return a transposed convolution over the last `dims` axes; its output is `more` voxels longer at its end."""
    kind = Transposed3d if dims == 3 else Transposed2d
    s, p, m = (_per_axis(dims, sizes) for sizes in (stride, padding, more))
    return kind(in_channels, out_channels, kernel, s, p, m, bias=bias)  # type: ignore[arg-type]


def normalize(x: Tensor, norm: str) -> Tensor:
    """Return `x` with mean 0 and variance 1 in each channel of each sample (`instance`), or as it is (`none`).

    Source: Ulyanov et al. 2016, with epsilon 1e-5, without weights of its own.
    """
    return _InOrder.apply(functional.instance_norm(x, use_input_stats=True)) if norm == "instance" else x


class _InOrder(torch.autograd.Function):
    """Hands a gradient on with its channels first.

    torch 2.13 takes a gradient of one sample with channels last for one with channels first: that of instance norm is
    then noise.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return `x`."""
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the gradient, in order."""
        return gradients[0].contiguous()


def reflect(x: Tensor, width: int, dims: int) -> Tensor:
    """Return `x` with `width` voxels of its mirror image at both ends of its last `dims` axes.

    The border voxel is not repeated.
    """
    if x.is_cuda:
        return reflect_by_slices(x, width, dims)
    return functional.pad(x, (width, width) * dims, mode="reflect")


def reflect_by_slices(x: Tensor, width: int, dims: int) -> Tensor:
    """Return what `reflect` returns: on a GPU torch's own gradients differ from run to run."""
    for axis in range(x.ndim - dims, x.ndim):
        n = x.shape[axis]
        ends = x.narrow(axis, 1, width).flip(axis), x.narrow(axis, n - 1 - width, width).flip(axis)
        x = torch.cat([ends[0], x, ends[1]], axis)
    return x


def repeat_border(x: Tensor, widths: Sequence[int]) -> Tensor:
    """Return (N, C, Z, Y, X) with its first and last voxels repeated `widths` times at both ends of z, y and x."""
    if not x.is_cuda:
        z, y, x_ = widths
        return functional.pad(x, (x_, x_, y, y, z, z), mode="replicate") if any(widths) else x
    return repeat_border_by_slices(x, widths)


def repeat_border_by_slices(x: Tensor, widths: Sequence[int]) -> Tensor:
    """Return what `repeat_border` returns: on a GPU torch's own gradients differ from run to run."""
    for axis, width in enumerate(widths, start=2):
        first, last = x.narrow(axis, 0, 1), x.narrow(axis, x.shape[axis] - 1, 1)
        x = torch.cat([first] * width + [x] + [last] * width, axis) if width else x
    return x


def interpolated(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return (N, C, Z, Y, X) at `shape` voxels, linear between voxels; the first and the last keep their places.

    It is torch's trilinear interpolation with `align_corners`, as products of matrices: their gradients are the same
    from run to run on a GPU, too.
    """
    for axis, n in enumerate(shape, start=2):
        if (length := x.shape[axis]) != n:
            # made on the device: a GPU that records a graph takes nothing from the host
            at = torch.linspace(0, length - 1, n, dtype=torch.float64, device=x.device)
            weights = (1 - (at[:, None] - torch.arange(length, device=x.device)).abs()).clamp(min=0)
            x = torch.tensordot(x, weights.to(x.dtype), ([axis], [1])).movedim(-1, axis)
    return x


def as_images(x: Tensor, dims: int) -> Tensor:
    """Return (N, C, Z, Y, X) as (N * Z, C, Y, X) for 2-D networks, as it is for others."""
    return x if dims == 3 else x.movedim(2, 1).flatten(0, 1)


def as_volume(x: Tensor, dims: int, samples: int) -> Tensor:
    """Return the reverse of `as_images`, for `samples` samples."""
    return x if dims == 3 else x.unflatten(0, (samples, -1)).movedim(1, 2)


def draw_normal_weights(network: nn.Module) -> None:
    """Draw all kernels from N(0, 0.02), from torch's random state, and set all biases to 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            nn.init.normal_(layer.weight, std=_DEVIATION)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _per_axis(dims: int, sizes: Sizes) -> tuple[int, ...]:
    return (sizes,) * dims if isinstance(sizes, int) else tuple(sizes)
