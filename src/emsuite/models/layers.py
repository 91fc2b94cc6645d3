"""Layers that torch has, but that do not compute on a CPU as they should.

Convolution2d, Convolution3d    torch's own; in bfloat16, gradients of kernels that reach over the whole input
Transposed2d, Transposed3d      are garbage: oneDNN leaves parts of them unwritten and writes past their end
average_pool                    there is none of volumes in 16 bits
elu                             its values depend on the number of threads
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional


class Convolution2d(nn.Conv2d):
    """A 2-D convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of `x` (N, C, Y, X)."""
        return _in_type_of_weights(super().forward, self, x, _is_short(self, x))


class Convolution3d(nn.Conv3d):
    """A 3-D convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of `x` (N, C, Z, Y, X)."""
        return _in_type_of_weights(super().forward, self, x, _is_short(self, x))


class Transposed2d(nn.ConvTranspose2d):
    """A 2-D transposed convolution."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return the transposed convolution of `x` (N, C, Y, X)."""
        forward = partial(super().forward, output_size=output_size)
        return _in_type_of_weights(forward, self, x, _is_output_short(self, x))


class Transposed3d(nn.ConvTranspose3d):
    """A 3-D transposed convolution."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return the transposed convolution of `x` (N, C, Z, Y, X)."""
        forward = partial(super().forward, output_size=output_size)
        return _in_type_of_weights(forward, self, x, _is_output_short(self, x))


def _in_type_of_weights(forward: Callable[[Tensor], Tensor], layer: nn.Module, x: Tensor, is_short: bool) -> Tensor:
    """Return `forward(x)`, on a CPU in the type of the weights where bfloat16 would make gradients garbage.

    This happens where an axis has fewer voxels than the kernel, around which zeros are laid (torch 2.13 with AVX-512
    bf16).
    """
    if is_short and is_reduced(x) and x.device.type == "cpu" and torch.is_grad_enabled():
        with torch.autocast("cpu", enabled=False):
            return forward(x.to(layer.weight.dtype))  # type: ignore[arg-type]
    return forward(x)


def is_reduced(x: Tensor) -> bool:
    """Return whether a CPU computes the convolution of `x` in another type than float32."""
    return x.dtype != torch.float32 or torch.is_autocast_enabled("cpu")


def _is_short(layer: nn.Conv2d | nn.Conv3d, x: Tensor) -> bool:
    return any(n < k for n, k in zip(x.shape[2:], layer.kernel_size, strict=True))


def _is_output_short(layer: nn.ConvTranspose2d | nn.ConvTranspose3d, x: Tensor) -> bool:
    """Return whether the output, whose gradient the layer reads, has fewer voxels than the kernel along an axis."""
    sizes = zip(x.shape[2:], layer.stride, layer.output_padding, map(int, layer.padding), strict=True)
    return any((n - 1) * stride + more < 2 * padding for n, stride, more, padding in sizes)


def average_pool(x: Tensor, factor: tuple[int, ...]) -> Tensor:
    """Return the means of blocks of `factor` voxels of (N, C, Z, Y, X) or (N, C, Y, X), on a CPU in float32."""
    exact = x.float() if x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float16) else x
    return (functional.avg_pool3d if x.ndim == 5 else functional.avg_pool2d)(exact, factor)


def elu(x: Tensor, inplace: bool = False) -> Tensor:
    """Return x above 0 and exp(x) - 1 below (Clevert et al. 2016), the same on any number of threads.

    torch computes the last values of each thread's part in another way, which differs in the last bit. Behind some
    layers many voxels differ, and so does a prediction by one worker from that by two. With gradients, it is torch's.

    Args:
        x: any shape, float.
        inplace: whether `x` may be overwritten.
    """
    if torch.is_grad_enabled() or x.is_cuda:
        return functional.elu(x, inplace=inplace)
    low = x.clamp(max=0).expm1_()
    return low.add_(x.clamp_(min=0) if inplace else x.clamp(min=0))
