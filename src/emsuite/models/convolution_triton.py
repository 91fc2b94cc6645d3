"""Triton kernels for the convolutions of few channels, and for bias and ReLU behind any convolution, on a GPU.

Activations lie channels last in memory, `(N, Z, Y, X, C)`. Each voxel (dz, dy, dx) of the kernel is a matrix product:

    output (voxels, C_out) = sum over dz, dy, dx of   input (voxels, shifted; C_in)  @  weights (C_in, C_out)

cuDNN takes some twenty times as long as the memory traffic of such a layer needs: its tiles are made for many channels.
All sums have a fixed order, so results are the same from run to run.
"""

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from emsuite.common.arrays import Shape

_LEAST = 16
"""The least length of the sum in a matrix product of Triton."""
_CHUNKS = 256
"""Programs among which the voxels are shared out for the gradient of a kernel."""


@triton.jit
def _taps(KZ: tl.constexpr, KY: tl.constexpr, KX: tl.constexpr, CIN: tl.constexpr, WIDTH: tl.constexpr):
    """Return the voxel along z, y and x, and whether it exists, of each of the WIDTH entries of one product."""
    entry = tl.arange(0, WIDTH)
    if CIN == 1:  # all voxels of the kernel in one product
        return entry // (KY * KX), entry // KX % KY, entry % KX, entry < KZ * KY * KX
    return entry * 0, entry * 0, entry // CIN, entry < KX * CIN


@triton.jit
def _load_input(
    x, n, oz, oy, ox, dz, dy, inside, Z, Y, X,
    KZ: tl.constexpr, KY: tl.constexpr, KX: tl.constexpr, PZ: tl.constexpr, PY: tl.constexpr, PX: tl.constexpr,
    CIN: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Return the input of the output voxels (n, oz, oy, ox) at the voxels (dz, dy) of the kernel: (BLOCK, WIDTH)."""
    tap_z, tap_y, tap_x, exists = _taps(KZ, KY, KX, CIN, WIDTH)
    iz = (oz + dz - PZ)[:, None] + tap_z[None, :]
    iy = (oy + dy - PY)[:, None] + tap_y[None, :]
    ix = (ox - PX)[:, None] + tap_x[None, :]
    valid = inside[:, None] & exists[None, :] & (ix < X)
    if PZ + PY + PX > 0:
        valid = valid & (iz >= 0) & (iz < Z) & (iy >= 0) & (iy < Y) & (ix >= 0)
    if CIN == 1:
        at = ((n[:, None].to(tl.int64) * Z + iz) * Y + iy) * X + ix
        return tl.load(x + at, mask=valid, other=0.0)
    row = ((n.to(tl.int64) * Z + (oz + dz - PZ)) * Y + (oy + dy - PY)) * X + (ox - PX)
    return tl.load(x + row[:, None] * CIN + tl.arange(0, WIDTH)[None, :], mask=valid, other=0.0)


@triton.jit
def _convolve_grey(
    x, weight, bias, y, Z, Y, X, OZ, OY, OX,
    KZ: tl.constexpr, KY: tl.constexpr, KX: tl.constexpr, PZ: tl.constexpr, PY: tl.constexpr, PX: tl.constexpr,
    WIDTH: tl.constexpr, COUT: tl.constexpr, HAS_BIAS: tl.constexpr, RELU: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One channel in: all voxels of the kernel in one product."""
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)  # of a section of the output
    section = tl.program_id(1)
    inside = voxel < OY * OX
    oy, ox = voxel // OX, voxel % OX
    n, oz = section // OZ + voxel * 0, section % OZ + voxel * 0
    channel = tl.arange(0, COUT)
    part = _load_input(x, n, oz, oy, ox, 0, 0, inside, Z, Y, X, KZ, KY, KX, PZ, PY, PX, 1, WIDTH)
    total = tl.dot(part, tl.load(weight + tl.arange(0, WIDTH)[:, None] * COUT + channel[None, :]))
    total = _behind(total, bias, channel, HAS_BIAS, RELU)
    out = (section.to(tl.int64) * OY * OX + voxel)[:, None] * COUT + channel[None, :]
    tl.store(y + out, total.to(y.dtype.element_ty), mask=inside[:, None])


@triton.jit
def _behind(total, bias, channel, HAS_BIAS: tl.constexpr, RELU: tl.constexpr):
    """Return the sums plus the bias, behind ReLU."""
    if HAS_BIAS:
        total += tl.load(bias + channel)[None, :]
    if RELU:
        total = tl.maximum(total, 0.0)
    return total


@triton.jit
def _convolve(
    x, weight, bias, y, Z, Y, X, OZ, OY, OX,
    KZ: tl.constexpr, KY: tl.constexpr, KX: tl.constexpr, PZ: tl.constexpr, PY: tl.constexpr, PX: tl.constexpr,
    CIN: tl.constexpr, COUT: tl.constexpr, HAS_BIAS: tl.constexpr, RELU: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """BLOCK voxels in a row of the input are read once for all KX voxels of the kernel, whose sums are shifted last."""
    row = X + 2 * PX  # voxels of a row of the input with the zeros around it
    number = tl.arange(0, BLOCK)
    voxel = tl.program_id(0) * (BLOCK - KX + 1) + number
    oy, ox = voxel // row, voxel % row
    section = tl.program_id(1)
    n, oz = section // OZ, section % OZ
    entry, channel = tl.arange(0, CIN), tl.arange(0, COUT)
    in_row = (ox >= PX) & (ox < X + PX)
    first = tl.zeros((BLOCK, COUT), tl.float32)
    second = tl.zeros((BLOCK, COUT), tl.float32)
    third = tl.zeros((BLOCK, COUT), tl.float32)
    for plane in range(KZ * KY):
        iz, iy = oz + plane // KY - PZ, oy + plane % KY - PY
        valid = in_row & (iy >= 0) & (iy < Y) & (iz >= 0) & (iz < Z)
        at = (n * Z + iz).to(tl.int64) * Y * X * CIN
        part = tl.load(x + at + (iy * X + ox - PX)[:, None] * CIN + entry[None, :], mask=valid[:, None], other=0.0)
        factor = weight + plane * KX * CIN * COUT + entry[:, None] * COUT + channel[None, :]
        first = tl.dot(part, tl.load(factor), first)
        if KX == 3:
            second = tl.dot(part, tl.load(factor + CIN * COUT), second)
            third = tl.dot(part, tl.load(factor + 2 * CIN * COUT), third)
    if KX == 3:
        behind = number[:, None] + tl.zeros((BLOCK, COUT), tl.int32)
        first += tl.gather(second, tl.minimum(behind + 1, BLOCK - 1), 0)
        first += tl.gather(third, tl.minimum(behind + 2, BLOCK - 1), 0)
    first = _behind(first, bias, channel, HAS_BIAS, RELU)
    kept = (number < BLOCK - KX + 1) & (ox < OX) & (oy < OY)
    out = section.to(tl.int64) * OY * OX * COUT + (oy * OX + ox)[:, None] * COUT + channel[None, :]
    tl.store(y + out, first.to(y.dtype.element_ty), mask=kept[:, None])


@triton.jit
def _weight_gradient(
    x, gradient, sums, voxels, per_chunk, Z, Y, X, OZ, OY, OX,
    KZ: tl.constexpr, KY: tl.constexpr, KX: tl.constexpr, PZ: tl.constexpr, PY: tl.constexpr, PX: tl.constexpr,
    CIN: tl.constexpr, WIDTH: tl.constexpr, COUT: tl.constexpr, PLANES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    plane, chunk = tl.program_id(0), tl.program_id(1)
    dz, dy = plane // KY, plane % KY
    entry, channel = tl.arange(0, WIDTH), tl.arange(0, COUT)
    total = tl.zeros((WIDTH, COUT), tl.float32)
    first = chunk.to(tl.int64) * per_chunk
    for begin in range(0, per_chunk, BLOCK):
        voxel = first + begin + tl.arange(0, BLOCK)
        inside = voxel < voxels
        line = voxel // OX
        oy, ox, plane_of = (line % OY).to(tl.int32), (voxel % OX).to(tl.int32), line // OY
        oz, n = (plane_of % OZ).to(tl.int32), (plane_of // OZ).to(tl.int32)
        part = _load_input(x, n, oz, oy, ox, dz, dy, inside, Z, Y, X, KZ, KY, KX, PZ, PY, PX, CIN, WIDTH)
        slope = tl.load(gradient + voxel[:, None] * COUT + channel[None, :], mask=inside[:, None], other=0.0)
        total = tl.dot(tl.trans(part), slope, total)
    out = ((chunk * PLANES + plane) * WIDTH + entry[:, None]) * COUT + channel[None, :]
    tl.store(sums + out, total)


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


def _next_power(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _lines(x: Tensor) -> Tensor:
    """Return (N, C, Z, Y, X) with its channels last in memory; no copy if they are already."""
    return x.contiguous(memory_format=torch.channels_last_3d)


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: Shape, relu: bool,
    block: int = 128, warps: int = 4, stages: int = 3,
) -> Tensor:  # fmt: skip
    """Return the convolution with stride 1, plus the bias, behind ReLU if asked.

    Args:
        x: (N, C_in, Z, Y, X), 16-bit or 32-bit floats; C_in is 1 or a power of two.
        weight: (C_out, C_in, *kernel) of the same type; C_out is a power of two, at least 16; the kernel has one or
            three voxels along x.
        bias: (C_out) float32, or None.
        padding: zeros around the input, z y x, on both sides.
        relu: whether negative values become 0.
        block: voxels of a program.
        warps: of 32 threads, of a program.
        stages: reads of a program that are under way at once.

    Returns:
        (N, C_out, Z', Y', X'), channels last in memory.
    """
    x, kernel = _lines(x), weight.shape[2:]
    n, channels, *shape = x.shape
    out = [size + 2 * p - k + 1 for size, p, k in zip(shape, padding, kernel, strict=True)]
    rows = weight.permute(2, 3, 4, 1, 0).reshape(-1, len(weight))
    y = torch.empty((n, len(weight), *out), dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d)
    behind = (x if bias is None else bias, y, *shape, *out, *kernel, *padding)
    end = (len(weight), bias is not None, relu, block)
    if channels == 1:
        width = max(_LEAST, _next_power(len(rows)))
        rows = torch.nn.functional.pad(rows, (0, 0, 0, width - len(rows))).contiguous()
        grid = (triton.cdiv(out[1] * out[2], block), n * out[0])
        _convolve_grey[grid](x, rows, *behind, width, *end, num_warps=warps)
    else:
        voxels = (out[1] - 1) * (shape[2] + 2 * padding[2]) + out[2]
        grid = (triton.cdiv(voxels, block - kernel[2] + 1), n * out[0])
        _convolve[grid](x, rows.contiguous(), *behind, channels, *end, num_warps=warps, num_stages=stages)
    return y


def input_gradient(
    slope: Tensor, weight: Tensor, padding: Shape, block: int = 128, warps: int = 4, stages: int = 3
) -> Tensor:
    """Return the gradient of the input from that of the output, `slope` (N, C_out, Z', Y', X'); see `convolve`."""
    mirrored = weight.flip(2, 3, 4).transpose(0, 1)
    around = tuple(k - 1 - p for k, p in zip(weight.shape[2:], padding, strict=True))
    return convolve(slope, mirrored, None, around, False, block, warps, stages)


def weight_gradient(
    x: Tensor, slope: Tensor, kernel: Sequence[int], padding: Shape, block: int = 128, warps: int = 4, stages: int = 1
) -> Tensor:
    """Return the gradient of the weights, float32 (C_out, C_in, *kernel), from `slope`, that of the output."""
    x, slope = _lines(x), _lines(slope)
    (n, channels, *shape), (_, out_channels, *out) = x.shape, slope.shape
    planes = 1 if channels == 1 else kernel[0] * kernel[1]
    used = math.prod(kernel) if channels == 1 else kernel[2] * channels
    width, voxels = max(_LEAST, _next_power(used)), n * math.prod(out)
    chunks = min(_CHUNKS * 4 if planes == 1 else _CHUNKS, triton.cdiv(voxels, block))
    per_chunk = triton.cdiv(triton.cdiv(voxels, chunks), block) * block
    sums = torch.empty((chunks, planes, width, out_channels), dtype=torch.float32, device=x.device)
    _weight_gradient[(planes, chunks)](
        x, slope, sums, voxels, per_chunk, *shape, *out, *kernel, *padding, channels, width, out_channels, planes,
        block, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    rows = sums.sum(0)[:, :used].reshape(*kernel, channels, out_channels)
    return rows.permute(4, 3, 0, 1, 2)


def _tiles(rows: int, channels: int) -> tuple[int, int]:
    width = min(64, max(16, _next_power(channels)))
    return 2048 // width, width


def bias_relu_(y: Tensor, bias: Tensor, relu: bool) -> Tensor:
    """Add the bias (C) float32 to `y` (N, C, Z, Y, X), channels last in memory, and apply ReLU if asked, in place."""
    rows, channels = y.numel() // y.shape[1], y.shape[1]
    block, width = _tiles(rows, channels)
    _bias_relu[(triton.cdiv(rows, block), triton.cdiv(channels, width))](y, bias, rows, channels, relu, block, width)
    return y


def bias_relu_backward(gradient: Tensor, y: Tensor, relu: bool) -> tuple[Tensor, Tensor]:
    """Return the gradients of the convolution's result, as `gradient`, and of the bias, float32 (C).

    Args:
        gradient: of `y`, (N, C, Z, Y, X).
        y: the values behind the ReLU, channels last in memory.
        relu: whether there was a ReLU.
    """
    gradient = _lines(gradient)
    rows, channels = y.numel() // y.shape[1], y.shape[1]
    block, width = _tiles(rows, channels)
    chunks = min(1024, triton.cdiv(rows, block))
    per_chunk = triton.cdiv(triton.cdiv(rows, chunks), block) * block
    slope = torch.empty_like(gradient) if relu else gradient
    sums = torch.empty((chunks, channels), dtype=torch.float32, device=y.device)
    grid = (chunks, triton.cdiv(channels, width))
    _bias_relu_backward[grid](gradient, y, slope, sums, rows, per_chunk, channels, relu, block, width)
    return slope, sums.sum(0)
