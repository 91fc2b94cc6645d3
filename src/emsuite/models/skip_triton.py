"""Triton kernels for what lies between two levels of a U-Net on a GPU: pooling on the way down, joining on the way up.

    down    maxima over blocks; their gradient, together with that of the skip connection
    up      the crop of the skip connection, and behind it, channel by channel, the rearranged and rectified blocks

Each passes once over memory, where torch passes four to six times. Features lie channels last in memory.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from emsuite.common.arrays import Shape
from emsuite.models.channels_triton import block_of

_VALUES = 1024  # of one block


@triton.jit
def _place(row, Z, Y, X):
    """Return the sample, z, y and x of rows that count voxels."""
    line = row // X
    plane = line // Y
    return plane // Z, plane % Z, line % Y, row % X


@triton.jit
def _row(n, z, y, x, Z, Y, X):
    return ((n * Z + z).to(tl.int64) * Y + y) * X + x


@triton.jit
def _in_blocks(n, z, y, x, Z, Y, X, FZ: tl.constexpr, FY: tl.constexpr, FX: tl.constexpr):
    """Return the row of a fine voxel where the voxels of each block are neighbours."""
    coarse = _row(n, z // FZ, y // FY, x // FX, Z // FZ, Y // FY, X // FX)
    return coarse * (FZ * FY * FX) + (z % FZ * FY + y % FY) * FX + x % FX


@triton.jit
def _pool(
    x, pooled, rows, Z, Y, X, C, FZ: tl.constexpr, FY: tl.constexpr, FX: tl.constexpr, BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    valid = (row < rows)[:, None] & (channel < C)[None, :]
    n, pz, py, px = _place(row, Z // FZ, Y // FY, X // FX)
    highest = tl.full((BLOCK, WIDTH), float("-inf"), tl.float32)
    for dz in tl.static_range(FZ):
        for dy in tl.static_range(FY):
            for dx in tl.static_range(FX):
                at = _row(n, pz * FZ + dz, py * FY + dy, px * FX + dx, Z, Y, X)
                value = tl.load(x + at[:, None] * C + channel[None, :], mask=valid, other=float("-inf"))
                highest = tl.maximum(highest, value.to(tl.float32), propagate_nan=tl.PropagateNan.ALL)
    out = row.to(tl.int64)[:, None] * C + channel[None, :]
    tl.store(pooled + out, highest.to(pooled.dtype.element_ty), mask=valid)


@triton.jit
def _pool_backward(
    gradient, cropped, x, pooled, result, rows, Z, Y, X, CZ, CY, CX, C, FZ: tl.constexpr, FY: tl.constexpr,
    FX: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The gradient goes to the first voxel that has the maximum; in the crop, its own gradient is added."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    valid = (row < rows)[:, None] & (channel < C)[None, :]
    n, pz, py, px = _place(row, Z // FZ, Y // FY, X // FX)
    here = row.to(tl.int64)[:, None] * C + channel[None, :]
    highest = tl.load(pooled + here, mask=valid, other=0.0)
    slope = tl.load(gradient + here, mask=valid, other=0.0).to(tl.float32)
    for dz in tl.static_range(FZ):
        for dy in tl.static_range(FY):
            for dx in tl.static_range(FX):
                z, y, w = pz * FZ + dz, py * FY + dy, px * FX + dx
                at = _row(n, z, y, w, Z, Y, X)[:, None] * C + channel[None, :]
                is_highest = tl.load(x + at, mask=valid, other=0.0) == highest
                value = tl.where(is_highest, slope, 0.0)
                slope = tl.where(is_highest, 0.0, slope)
                cz, cy, cx = z - (Z - CZ) // 2, y - (Y - CY) // 2, w - (X - CX) // 2
                inside = (cz >= 0) & (cz < CZ) & (cy >= 0) & (cy < CY) & (cx >= 0) & (cx < CX)
                crop = _row(n, cz, cy, cx, CZ, CY, CX)[:, None] * C + channel[None, :]
                value += tl.load(cropped + crop, mask=valid & inside[:, None], other=0.0).to(tl.float32)
                tl.store(result + at, value.to(result.dtype.element_ty), mask=valid)


@triton.jit
def _join(
    skip, blocks, out, rows, Z, Y, X, SZ, SY, SX, S, C, FZ: tl.constexpr, FY: tl.constexpr, FX: tl.constexpr,
    BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    exists = (row < rows)[:, None]
    n, z, y, x = _place(row, Z, Y, X)
    at = _row(n, z + (SZ - Z) // 2, y + (SY - Y) // 2, x + (SX - X) // 2, SZ, SY, SX)
    to = row.to(tl.int64)[:, None] * (S + C) + channel[None, :]
    from_skip = exists & (channel < S)[None, :]
    value = tl.load(skip + at[:, None] * S + channel[None, :], mask=from_skip, other=0.0)
    tl.store(out + to, value, mask=from_skip)
    from_blocks = exists & (channel < C)[None, :]
    at = _in_blocks(n, z, y, x, Z, Y, X, FZ, FY, FX)[:, None] * C + channel[None, :]
    value = tl.load(blocks + at, mask=from_blocks, other=0.0)
    tl.store(out + to + S, tl.where(value > 0, value, 0.0), mask=from_blocks)


@triton.jit
def _join_backward(
    gradient, out, to_skip, to_blocks, rows, Z, Y, X, S, C, FZ: tl.constexpr, FY: tl.constexpr, FX: tl.constexpr,
    BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    exists = (row < rows)[:, None]
    n, z, y, x = _place(row, Z, Y, X)
    here = row.to(tl.int64)[:, None]
    at = here * (S + C) + channel[None, :]
    from_skip = exists & (channel < S)[None, :]
    value = tl.load(gradient + at, mask=from_skip, other=0.0)
    tl.store(to_skip + here * S + channel[None, :], value, mask=from_skip)
    from_blocks = exists & (channel < C)[None, :]
    value = tl.load(gradient + at + S, mask=from_blocks, other=0.0)
    kept = tl.load(out + at + S, mask=from_blocks, other=0.0)
    to = _in_blocks(n, z, y, x, Z, Y, X, FZ, FY, FX)[:, None] * C + channel[None, :]
    tl.store(to_blocks + to, tl.where(kept > 0, value, 0.0), mask=from_blocks)


def _empty(n: int, channels: int, shape: Shape, like: Tensor) -> Tensor:
    size = (n, channels, *shape)
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last_3d)


def pool(x: Tensor, factor: Shape) -> Tensor:
    """Return the maxima over blocks of `factor` voxels of `x` (N, C, Z, Y, X), whose shape is a multiple of it."""
    n, channels, *shape = x.shape
    pooled = _empty(n, channels, tuple(s // f for s, f in zip(shape, factor, strict=True)), x)
    rows, (block, width) = pooled.numel() // channels, block_of(channels, _VALUES)
    grid = (triton.cdiv(rows, block), triton.cdiv(channels, width))
    _pool[grid](x, pooled, rows, *shape, channels, *factor, block, width)
    return pooled


def pool_backward(gradient: Tensor, cropped: Tensor, x: Tensor, pooled: Tensor, factor: Shape) -> Tensor:
    """Return the gradient of `x` from those of `pooled` and of the centre of `x`, `cropped`."""
    channels, *shape = x.shape[1:]
    result = torch.empty_like(x)
    rows, (block, width) = pooled.numel() // channels, block_of(channels, _VALUES)
    grid = (triton.cdiv(rows, block), triton.cdiv(channels, width))
    _pool_backward[grid](
        gradient, cropped, x, pooled, result, rows, *shape, *cropped.shape[2:], channels, *factor, block, width
    )
    return result


def join(skip: Tensor, blocks: Tensor, factor: Shape) -> Tensor:
    """Return the centre of `skip`, and behind its channels the rectified blocks.

    Args:
        skip: (N, S, Z, Y, X), as large as the result or larger, channels last in memory.
        blocks: (N, z, y, x, voxels of a block * C), contiguous: the channels of each voxel of the block are neighbours.
        factor: voxels of a block, z y x.

    Returns:
        (N, S + C, *(z, y, x) * factor), channels last in memory.
    """
    assert skip.is_contiguous(memory_format=torch.channels_last_3d)
    n, channels, *around = skip.shape
    upsampled = blocks.shape[-1] // (factor[0] * factor[1] * factor[2])
    shape = tuple(s * f for s, f in zip(blocks.shape[1:4], factor, strict=True))
    out = _empty(n, channels + upsampled, shape, blocks)
    rows, (block, width) = out.numel() // out.shape[1], block_of(max(channels, upsampled), _VALUES)
    grid = (triton.cdiv(rows, block), triton.cdiv(max(channels, upsampled), width))
    _join[grid](skip, blocks, out, rows, *shape, *around, channels, upsampled, *factor, block, width)
    return out


def join_backward(gradient: Tensor, out: Tensor, channels: int, factor: Shape) -> tuple[Tensor, Tensor]:
    """Return the gradients of the centre of `skip`, with so many `channels`, and of `blocks`, from that of `out`."""
    n, both, *shape = out.shape
    upsampled = both - channels
    to_skip = _empty(n, channels, tuple(shape), gradient)
    coarse = [s // f for s, f in zip(shape, factor, strict=True)]
    to_blocks = gradient.new_empty((n, *coarse, factor[0] * factor[1] * factor[2] * upsampled))
    rows, (block, width) = out.numel() // both, block_of(max(channels, upsampled), _VALUES)
    grid = (triton.cdiv(rows, block), triton.cdiv(max(channels, upsampled), width))
    _join_backward[grid](gradient, out, to_skip, to_blocks, rows, *shape, channels, upsampled, *factor, block, width)
    return to_skip, to_blocks
