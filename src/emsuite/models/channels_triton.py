"""Triton kernels that pass once over the channels of activations or weights on a GPU.

Activations and weights lie channels last in memory, so that both are rows of channels: a row for each voxel.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from emsuite.common.arrays import Shape

_VALUES = 2048  # of one block


@triton.jit
def _bias_relu(y, bias, rows, C, RELU: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    valid = (row < rows)[:, None] & (channel < C)[None, :]
    at = row[:, None] * C + channel[None, :]
    value = tl.load(y + at, mask=valid, other=0.0).to(tl.float32)
    value += tl.load(bias + channel, mask=channel < C, other=0.0)[None, :]
    if RELU:
        value = tl.maximum(value, 0.0)
    tl.store(y + at, value.to(y.dtype.element_ty), mask=valid)


@triton.jit
def _bias_relu_backward(
    gradient, y, slope, sums, rows, per_chunk, C, RELU: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr
):
    chunk = tl.program_id(0)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    total = tl.zeros((BLOCK, WIDTH), tl.float32)
    first = chunk.to(tl.int64) * per_chunk
    for begin in range(0, per_chunk, BLOCK):
        row = first + begin + tl.arange(0, BLOCK)
        valid = (row < rows)[:, None] & (channel < C)[None, :]
        at = row[:, None] * C + channel[None, :]
        value = tl.load(gradient + at, mask=valid, other=0.0).to(tl.float32)
        if RELU:
            kept = tl.load(y + at, mask=valid, other=0.0)
            value = tl.where(kept > 0, value, 0.0)
            tl.store(slope + at, value.to(slope.dtype.element_ty), mask=valid)
        total += value
    tl.store(sums + chunk * C + channel, tl.sum(total, 0), mask=channel < C)


@triton.jit
def _resize(
    source, target, source_rows, rows, source_width, width, source_part, part, BLOCK: tl.constexpr, WIDTH: tl.constexpr
):
    """Copy rows of parts of channels; where a part of the target is longer, or the target has more rows, put zeros."""
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    within = channel % part
    exists = (row < source_rows)[:, None] & ((within < source_part) & (channel < width))[None, :]
    at = row[:, None] * source_width + (channel // part * source_part + within)[None, :]
    value = tl.load(source + at, mask=exists, other=0.0)
    inside = (row < rows)[:, None] & (channel < width)[None, :]
    tl.store(target + row[:, None] * width + channel[None, :], value.to(target.dtype.element_ty), mask=inside)


def lines(x: Tensor) -> Tensor:
    """Return (N, C, Z, Y, X) with its channels last in memory; no copy if they are already."""
    return x.contiguous(memory_format=torch.channels_last_3d)


def block_of(channels: int, values: int = _VALUES) -> tuple[int, int]:
    """Return the rows and the channels of a block of so many values."""
    width = min(64, max(16, triton.next_power_of_2(channels)))
    return values // width, width


def bias_relu_(y: Tensor, bias: Tensor, relu: bool) -> Tensor:
    """Add the bias (C) float32 to `y` (N, C, Z, Y, X), channels last in memory, and apply ReLU if asked, in place."""
    rows, channels = y.numel() // y.shape[1], y.shape[1]
    block, width = block_of(channels)
    _bias_relu[(triton.cdiv(rows, block), triton.cdiv(channels, width))](y, bias, rows, channels, relu, block, width)
    return y


def bias_relu_backward(gradient: Tensor, y: Tensor, relu: bool) -> tuple[Tensor, Tensor]:
    """Return the gradients of the convolution's result, as `gradient`, and of the bias, float32 (C).

    Args:
        gradient: of `y`, (N, C, Z, Y, X).
        y: the values behind the ReLU, channels last in memory.
        relu: whether there was a ReLU.
    """
    gradient = lines(gradient)
    rows, channels = y.numel() // y.shape[1], y.shape[1]
    block, width = block_of(channels)
    chunks = min(1024, triton.cdiv(rows, block))
    per_chunk = triton.cdiv(triton.cdiv(rows, chunks), block) * block
    slope = torch.empty_like(gradient) if relu else gradient
    sums = torch.empty((chunks, channels), dtype=torch.float32, device=y.device)
    grid = (chunks, triton.cdiv(channels, width))
    _bias_relu_backward[grid](gradient, y, slope, sums, rows, per_chunk, channels, relu, block, width)
    return slope, sums.sum(0)


def resize_weight(weight: Tensor, shape: Shape, parts: int, dtype: torch.dtype) -> Tensor:
    """Return weights (out, in, *kernel) with other numbers of channels: the last ones are left out, or new ones are 0.

    Args:
        weight: on a GPU, of any type.
        shape: (out, in, *kernel) of the result, with the same kernel.
        parts: the input consists of so many equal parts, each of which gets longer or shorter.
        dtype: of the result.

    Returns:
        channels last in memory.
    """
    weight = lines(weight)
    target = torch.empty(shape, dtype=dtype, device=weight.device, memory_format=torch.channels_last_3d)
    (width, source_width), voxels = (shape[1], weight.shape[1]), shape[2] * shape[3] * shape[4]
    block, columns = block_of(width)
    grid = (triton.cdiv(shape[0] * voxels, block), triton.cdiv(width, columns))
    _resize[grid](
        weight, target, weight.shape[0] * voxels, shape[0] * voxels, source_width, width, source_width // parts,
        width // parts, block, columns,
    )  # fmt: skip
    return target
