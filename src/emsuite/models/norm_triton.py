"""Batch normalisation and ReLU in Triton kernels for a GPU (Ioffe & Szegedy 2015).

    forward     read x: sums of parts            ->  mean, scale    ->  read x, write relu((x - mean) * scale + bias)
    backward    read x, y, slope: sums of parts  ->  their factors  ->  read x, y, slope, write the gradient of x

torch reads and writes the features five times forward and seven times backward. Features lie channels last in memory,
so that both are rows of channels. Sums have a fixed order, so results are the same from run to run.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from emsuite.models.channels_triton import block_of, lines

_VALUES = 4096  # of one block
_PARTS = 256
"""Parts of the rows that are summed apart, at most; a power of two."""
_NARROW = 16
"""Channels of a program that adds up the parts."""


@triton.jit
def _sums_forward(x, sums, rows, per_part, C, BLOCK: tl.constexpr, WIDTH: tl.constexpr):
    """Add up the values of a part and their squares, less the first row, so that no digits cancel."""
    part, first = tl.program_id(0), tl.program_id(0).to(tl.int64) * per_part
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    shift = tl.load(x + channel, mask=channel < C, other=0.0).to(tl.float32)
    total = tl.zeros((BLOCK, WIDTH), tl.float32)
    squares = tl.zeros((BLOCK, WIDTH), tl.float32)
    for begin in range(0, per_part, BLOCK):
        row = first + begin + tl.arange(0, BLOCK)
        valid = (row < rows)[:, None] & (channel < C)[None, :]
        value = tl.load(x + row[:, None] * C + channel[None, :], mask=valid, other=0.0).to(tl.float32)
        value = tl.where(valid, value - shift[None, :], 0.0)
        total += value
        squares += value * value
    at = part * 2 * C + channel
    tl.store(sums + at, tl.sum(total, 0), mask=channel < C)
    tl.store(sums + at + C, tl.sum(squares, 0), mask=channel < C)


@triton.jit
def _added(sums, parts, channel, C, PARTS: tl.constexpr):
    """Return both sums over all parts, float64."""
    part = tl.arange(0, PARTS)
    valid = (part < parts)[:, None] & (channel < C)[None, :]
    at = part[:, None] * 2 * C + channel[None, :]
    one = tl.load(sums + at, mask=valid, other=0.0).to(tl.float64)
    other = tl.load(sums + at + C, mask=valid, other=0.0).to(tl.float64)
    return tl.sum(one, 0), tl.sum(other, 0)


@triton.jit
def _finish_forward(
    x, sums, weight, running_mean, running_var, factors, rows, parts, C, epsilon, momentum,
    PARTS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Store mean, 1 / deviation and scale of each channel, and move the running averages."""
    channel = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    inside = channel < C
    total, squares = _added(sums, parts, channel, C, PARTS)
    shifted = total / rows
    mean = (shifted + tl.load(x + channel, mask=inside, other=0.0).to(tl.float64)).to(tl.float32)
    variance = tl.maximum(squares / rows - shifted * shifted, 0.0).to(tl.float32)
    inverse = 1.0 / tl.sqrt(variance + epsilon)
    tl.store(factors + channel, mean, mask=inside)
    tl.store(factors + C + channel, inverse, mask=inside)
    tl.store(factors + 2 * C + channel, tl.load(weight + channel, mask=inside, other=0.0) * inverse, mask=inside)
    old = tl.load(running_mean + channel, mask=inside, other=0.0)
    tl.store(running_mean + channel, old + momentum * (mean - old), mask=inside)
    old = tl.load(running_var + channel, mask=inside, other=0.0)
    unbiased = variance * (rows / (rows - 1.0))
    tl.store(running_var + channel, old + momentum * (unbiased - old), mask=inside)


@triton.jit
def _apply(x, y, means, scales, bias, rows, C, BLOCK: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    valid = (row < rows)[:, None] & (channel < C)[None, :]
    at = row[:, None] * C + channel[None, :]
    mean = tl.load(means + channel, mask=channel < C, other=0.0)
    scale = tl.load(scales + channel, mask=channel < C, other=0.0)
    value = (tl.load(x + at, mask=valid, other=0.0).to(tl.float32) - mean[None, :]) * scale[None, :]
    value += tl.load(bias + channel, mask=channel < C, other=0.0)[None, :]
    value = tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(y + at, value.to(y.dtype.element_ty), mask=valid)


@triton.jit
def _sums_backward(x, y, slope, factors, sums, rows, per_part, C, BLOCK: tl.constexpr, WIDTH: tl.constexpr):
    """Add up the gradients behind the ReLU of a part, and their products with the normalised values."""
    part, first = tl.program_id(0), tl.program_id(0).to(tl.int64) * per_part
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    mean = tl.load(factors + channel, mask=channel < C, other=0.0)
    inverse = tl.load(factors + C + channel, mask=channel < C, other=0.0)
    total = tl.zeros((BLOCK, WIDTH), tl.float32)
    products = tl.zeros((BLOCK, WIDTH), tl.float32)
    for begin in range(0, per_part, BLOCK):
        row = first + begin + tl.arange(0, BLOCK)
        valid = (row < rows)[:, None] & (channel < C)[None, :]
        at = row[:, None] * C + channel[None, :]
        passed = tl.load(y + at, mask=valid, other=0.0) > 0
        value = tl.where(passed, tl.load(slope + at, mask=valid, other=0.0).to(tl.float32), 0.0)
        normalised = (tl.load(x + at, mask=valid, other=0.0).to(tl.float32) - mean[None, :]) * inverse[None, :]
        total += value
        products += value * normalised
    at = part * 2 * C + channel
    tl.store(sums + at, tl.sum(total, 0), mask=channel < C)
    tl.store(sums + at + C, tl.sum(products, 0), mask=channel < C)


@triton.jit
def _finish_backward(sums, factors, gradients, rows, parts, C, PARTS: tl.constexpr, WIDTH: tl.constexpr):
    """Store the gradients of bias and weight, and of the gradient the factor of x - mean and the constant."""
    channel = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    inside = channel < C
    total, products = _added(sums, parts, channel, C, PARTS)
    inverse = tl.load(factors + C + channel, mask=inside, other=0.0)
    scale = tl.load(factors + 2 * C + channel, mask=inside, other=0.0)
    of_x = -scale * inverse * (products / rows).to(tl.float32)
    tl.store(gradients + channel, total.to(tl.float32), mask=inside)
    tl.store(gradients + C + channel, products.to(tl.float32), mask=inside)
    tl.store(gradients + 2 * C + channel, of_x, mask=inside)
    tl.store(gradients + 3 * C + channel, -scale * (total / rows).to(tl.float32), mask=inside)


@triton.jit
def _apply_backward(x, y, slope, factors, gradients, to_x, rows, C, BLOCK: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    valid = (row < rows)[:, None] & (channel < C)[None, :]
    at = row[:, None] * C + channel[None, :]
    mean = tl.load(factors + channel, mask=channel < C, other=0.0)
    scale = tl.load(factors + 2 * C + channel, mask=channel < C, other=0.0)
    of_x = tl.load(gradients + 2 * C + channel, mask=channel < C, other=0.0)
    constant = tl.load(gradients + 3 * C + channel, mask=channel < C, other=0.0)
    passed = tl.load(y + at, mask=valid, other=0.0) > 0
    value = tl.where(passed, tl.load(slope + at, mask=valid, other=0.0).to(tl.float32), 0.0) * scale[None, :]
    value += (tl.load(x + at, mask=valid, other=0.0).to(tl.float32) - mean[None, :]) * of_x[None, :]
    value += constant[None, :]
    tl.store(to_x + at, value.to(to_x.dtype.element_ty), mask=valid)


def _parts_of(rows: int, block: int) -> tuple[int, int]:
    """Return the number of parts and the rows of each, a multiple of `block`."""
    per_part = triton.cdiv(triton.cdiv(rows, min(_PARTS, triton.cdiv(rows, block))), block) * block
    return triton.cdiv(rows, per_part), per_part


class _NormRelu(torch.autograd.Function):
    """Normalised over batch and space as in training, behind ReLU; moves the running averages."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, layer: nn.BatchNorm3d) -> Tensor:
        x = lines(x)
        channels, rows = x.shape[1], x.numel() // x.shape[1]
        block, width = block_of(channels, _VALUES)
        parts, per_part = _parts_of(rows, block)
        sums = torch.empty((parts, 2, channels), dtype=torch.float32, device=x.device)
        factors = torch.empty((3, channels), dtype=torch.float32, device=x.device)
        columns = triton.cdiv(channels, width)
        _sums_forward[(parts, columns)](x, sums, rows, per_part, channels, block, width)
        _finish_forward[(triton.cdiv(channels, _NARROW),)](
            x, sums, weight, layer.running_mean, layer.running_var, factors, rows, parts, channels, layer.eps,
            layer.momentum, _PARTS, _NARROW, num_warps=8,
        )  # fmt: skip
        y = torch.empty_like(x)
        _apply[(triton.cdiv(rows, block), columns)](x, y, factors[0], factors[2], bias, rows, channels, block, width)
        ctx.save_for_backward(x, y, factors)
        return y

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        x, y, factors = ctx.saved_tensors
        slope = lines(slopes[0])
        channels, rows = x.shape[1], x.numel() // x.shape[1]
        block, width = block_of(channels, _VALUES)
        parts, per_part = _parts_of(rows, block)
        sums = torch.empty((parts, 2, channels), dtype=torch.float32, device=x.device)
        gradients = torch.empty((4, channels), dtype=torch.float32, device=x.device)
        columns = triton.cdiv(channels, width)
        _sums_backward[(parts, columns)](x, y, slope, factors, sums, rows, per_part, channels, block, width)
        _finish_backward[(triton.cdiv(channels, _NARROW),)](
            sums, factors, gradients, rows, parts, channels, _PARTS, _NARROW, num_warps=8
        )
        to_x = torch.empty_like(x)
        _apply_backward[(triton.cdiv(rows, block), columns)](
            x, y, slope, factors, gradients, to_x, rows, channels, block, width
        )
        return to_x, gradients[1], gradients[0], None


def norm_relu(layer: nn.BatchNorm3d, x: Tensor) -> Tensor:
    """Return `relu(layer(x))`, and in training move the running averages of `layer` as it does.

    Args:
        layer: with weights and running averages in float32, and a momentum.
        x: (N, C, Z, Y, X) floats, of two voxels at least in training.

    Returns:
        the same shape and type, channels last in memory.
    """
    if layer.training:
        assert layer.num_batches_tracked is not None
        layer.num_batches_tracked.add_(1)
        return _NormRelu.apply(x, layer.weight, layer.bias, layer)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    scale = layer.weight * torch.rsqrt(layer.running_var + layer.eps)
    x = lines(x)
    y, channels, rows = torch.empty_like(x), x.shape[1], x.numel() // x.shape[1]
    block, width = block_of(channels, _VALUES)
    grid = (triton.cdiv(rows, block), triton.cdiv(channels, width))
    _apply[grid](x, y, layer.running_mean, scale, layer.bias, rows, channels, block, width)
    return y
