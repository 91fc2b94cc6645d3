"""Convolutions in 16 bits on a GPU: channels padded with zeros to suit its matrix units, bias and ReLU in one pass.

    12 channels  ->  16, of which 4 are 0        weights (12, 12, 3, 3, 3)  ->  (16, 16, 3, 3, 3), zeros behind

cuDNN pads channels that are no multiple of 8 on its own, in every call: a sixth of a training step. Here activations
stay padded from layer to layer, and only weights are padded anew. The parameters of a network, their gradients and
their meaning do not change: padded channels are 0 and stay 0, and no gradient comes from them.

Layers of few channels, a third of a step, take the kernels of `convolution_triton`, all others cuDNN's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from emsuite.common import device
from emsuite.common.arrays import Shape

_forced: bool | None = None


def aligned(channels: int) -> int:
    """Return the number of channels, padded: 1, 16, 32, or a multiple of 8."""
    if channels == 1:
        return 1
    return 16 if channels <= 16 else 32 if channels <= 32 else -(-channels // 8) * 8


def aligns(x: Tensor) -> bool:
    """Return whether the layers behind `x` (N, C, Z, Y, X) run with padded channels: on a GPU, in 16 bits."""
    if x.ndim != 5 or torch.compiler.is_compiling():
        return False
    if _forced is not None:
        return _forced
    return x.is_cuda and torch.is_autocast_enabled("cuda")


@contextmanager
def forced(enabled: bool) -> Iterator[None]:
    """Within the block, layers run with padded channels on every device and in every precision, or on none."""
    global _forced
    before, _forced = _forced, enabled
    try:
        yield
    finally:
        _forced = before


def convolve_relu(layer: nn.Module, x: Tensor, parts: int = 1) -> Tensor:
    """Return `relu(layer(x))`, with padded channels.

    Args:
        layer: an `nn.Conv3d` with bias.
        x: (N, C, Z, Y, X), C as `layer` reads it, or padded.
        parts: the input was joined of so many equal parts, each of them padded.

    Returns:
        (N, aligned(C'), Z', Y', X'), the last channels 0.
    """
    assert isinstance(layer, nn.Conv3d)
    padding = tuple((k - 1) // 2 for k in layer.kernel_size) if layer.padding == "same" else tuple(layer.padding)
    if x.shape[1] == layer.in_channels != parts * aligned(layer.in_channels // parts):
        x = _pad_channels(x, aligned(layer.in_channels))
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    x = x.to(dtype, memory_format=torch.channels_last_3d)
    return _Convolution.apply(x, layer.weight, layer.bias, parts, padding, tuple(layer.stride))


def _pad_channels(x: Tensor, channels: int) -> Tensor:
    return functional.pad(x, (0, 0) * (x.ndim - 2) + (0, channels - x.shape[1]))


def pad_weight(weight: Tensor, parts: int, dtype: torch.dtype) -> Tensor:
    """Return weights (out, in, *kernel) with zeros for the padded channels of the output and each part of the input."""
    out, width, *kernel = weight.shape
    part = width // parts
    shape = (aligned(out), parts, aligned(part), *kernel)
    if shape[0] == out and shape[2] == part:
        return weight.to(dtype, memory_format=torch.channels_last_3d)
    size = (shape[0], shape[1] * shape[2], *kernel)
    if device.runs_triton(weight):
        from emsuite.models import channels_triton

        return channels_triton.resize_weight(weight, size, parts, dtype)
    padded = torch.zeros(size, dtype=dtype, device=weight.device)
    for number in range(parts):
        first = number * shape[2]
        padded[:out, first : first + part].copy_(weight[:, number * part : (number + 1) * part])
    return padded


def crop_weight(padded: Tensor, shape: Shape, parts: int) -> Tensor:
    """Return the reverse of `pad_weight`: `shape`, channels last in memory, float32 for 16 bits."""
    if device.runs_triton(padded):
        from emsuite.models import channels_triton

        return channels_triton.resize_weight(padded, shape, parts, torch.float32)
    part, width = shape[1] // parts, padded.shape[1] // parts
    pieces = [padded[: shape[0], number * width : number * width + part] for number in range(parts)]
    joined = pieces[0] if parts == 1 else torch.cat(pieces, 1)
    return joined.to(_full(padded.dtype), memory_format=torch.channels_last_3d)


def _full(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which a layer adds up."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class _Convolution(torch.autograd.Function):
    """A convolution, its bias and ReLU, with padded channels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, parts: int, padding: Shape,
                stride: Shape) -> Tensor:  # fmt: skip
        padded = pad_weight(weight, parts, x.dtype)
        zeros = functional.pad(bias.to(_full(x.dtype)), (0, len(padded) - len(bias)))
        ctx.parts, ctx.padding, ctx.stride, ctx.shape = parts, padding, stride, tuple(weight.shape)
        y = _forward(x, padded, zeros, padding, stride)
        ctx.save_for_backward(x, padded, y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, y = ctx.saved_tensors
        slope, bias_gradient = _relu_backward(gradients[0], y)
        to_input, to_weight = _backward(x, weight, slope, ctx.padding, ctx.stride, ctx.needs_input_grad[0])
        to_weight = crop_weight(to_weight, ctx.shape, ctx.parts)
        return to_input, to_weight, bias_gradient[: ctx.shape[0]], None, None, None


def _is_direct(x: Tensor, weight: Tensor, stride: Shape) -> bool:
    """Return whether the kernels of `convolution_triton` compute this layer."""
    few = x.shape[1] in (1, 16) and weight.shape[0] == 16 and weight.shape[-1] == 3 and weight.shape[-2] in (1, 3)
    return few and set(stride) == {1} and device.runs_triton(x)


def _forward(x: Tensor, weight: Tensor, bias: Tensor, padding: Shape, stride: Shape) -> Tensor:
    if _is_direct(x, weight, stride):
        from emsuite.models import convolution_triton

        return convolution_triton.convolve(x, weight, bias, padding, relu=True)
    y = torch.ops.aten.convolution(x, weight, None, stride, padding, (1, 1, 1), False, (0, 0, 0), 1)
    y = y.contiguous(memory_format=torch.channels_last_3d)
    if device.runs_triton(x):
        from emsuite.models import channels_triton

        return channels_triton.bias_relu_(y, bias, relu=True)
    y += bias[:, None, None, None].to(y.dtype)
    return y.relu_()


def _relu_backward(gradient: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of the convolution's result and of the bias."""
    if device.runs_triton(y):
        from emsuite.models import channels_triton

        return channels_triton.bias_relu_backward(gradient, y, relu=True)
    slope = gradient * (y > 0)
    return slope, slope.to(_full(slope.dtype)).sum((0, 2, 3, 4))


def _backward(x: Tensor, weight: Tensor, slope: Tensor, padding: Shape, stride: Shape,
              to_input: bool) -> tuple[Tensor | None, Tensor]:  # fmt: skip
    """Return the gradients of the input, if asked, and of the weights."""
    if _is_direct(x, weight, stride):
        from emsuite.models import convolution_triton

        before = convolution_triton.input_gradient(slope, weight, padding) if to_input else None
        return before, convolution_triton.weight_gradient(x, slope, weight.shape[2:], padding)
    mask = (to_input, True, False)
    before, to_weight, _ = torch.ops.aten.convolution_backward(
        slope, x, weight, None, stride, padding, (1, 1, 1), False, (0, 0, 0), 1, mask
    )
    return before, to_weight
