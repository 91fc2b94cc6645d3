"""Triton kernels for the convolutions of few channels on a GPU.

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
from emsuite.models.channels_triton import lines

_LEAST = 16
"""The least length of the sum in a matrix product of Triton."""
_BLOCK = 256
"""Voxels of a program of 4 warps: the fastest of those tried on an H200."""
_CHUNKS = 512
"""Parts into which the voxels are shared out for the gradient of a kernel, at least."""


@triton.jit
def _load_input(
    x, section, oy, ox, dz, dy, inside, Z, Y, X, OZ,
    KZ: tl.constexpr, KY: tl.constexpr, KX: tl.constexpr, PZ: tl.constexpr, PY: tl.constexpr, PX: tl.constexpr,
    CIN: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Return what the voxels (oy, ox) of a section of the output read: (BLOCK, WIDTH).

    With one channel, the entries of a row are all voxels of the kernel; with more, the channels of its voxels along x,
    at (dz, dy).
    """
    n, z = section // OZ, section % OZ + dz - PZ
    entry = tl.arange(0, WIDTH)
    if CIN == 1:
        tap_z, tap_y, tap_x, exists = entry // (KY * KX), entry // KX % KY, entry % KX, entry < KZ * KY * KX
        at = (n * Z + z + tap_z).to(tl.int64)[None, :] * Y * X
    else:
        tap_z, tap_y, tap_x, exists = entry * 0, entry * 0, entry // CIN, entry < KX * CIN
        at = (n * Z + z).to(tl.int64) * Y * X * CIN
    y, ix = oy + dy - PY, (ox - PX)[:, None] + tap_x[None, :]
    valid = inside[:, None] & exists[None, :] & (ix < X)
    if PZ + PY + PX > 0:
        iz, iy = z + tap_z, y[:, None] + tap_y[None, :]
        valid = valid & (ix >= 0) & (iy >= 0) & (iy < Y) & ((iz >= 0) & (iz < Z))[None, :]
    if CIN == 1:
        return tl.load(x + at + (y[:, None] + tap_y[None, :]) * X + ix, mask=valid, other=0.0)
    return tl.load(x + at + ((y * X + ox - PX) * CIN)[:, None] + entry[None, :], mask=valid, other=0.0)


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
    channel = tl.arange(0, COUT)
    part = _load_input(x, section, oy, ox, 0, 0, inside, Z, Y, X, OZ, KZ, KY, KX, PZ, PY, PX, 1, WIDTH)
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
    # the weights of the KX voxels stand side by side, and zeros behind them: one product for all
    beside = tl.arange(0, 4 * COUT)
    total = tl.zeros((BLOCK, 4 * COUT), tl.float32)
    for plane in range(KZ * KY):
        iz, iy = oz + plane // KY - PZ, oy + plane % KY - PY
        valid = in_row & (iy >= 0) & (iy < Y) & (iz >= 0) & (iz < Z)
        at = (n * Z + iz).to(tl.int64) * Y * X * CIN
        part = tl.load(x + at + (iy * X + ox - PX)[:, None] * CIN + entry[None, :], mask=valid[:, None], other=0.0)
        factor = tl.load(weight + (plane * CIN + entry[:, None]) * (4 * COUT) + beside[None, :])
        total = tl.dot(part, factor, total)
    which = tl.arange(0, 4)[None, :, None]
    total = tl.reshape(total, (BLOCK, 4, COUT))
    first = tl.sum(tl.where(which == 0, total, 0.0), 1)
    behind = number[:, None] + tl.zeros((BLOCK, COUT), tl.int32)
    first += tl.gather(tl.sum(tl.where(which == 1, total, 0.0), 1), tl.minimum(behind + 1, BLOCK - 1), 0)
    first += tl.gather(tl.sum(tl.where(which == 2, total, 0.0), 1), tl.minimum(behind + 2, BLOCK - 1), 0)
    first = _behind(first, bias, channel, HAS_BIAS, RELU)
    kept = (number < BLOCK - KX + 1) & (ox < OX) & (oy < OY)
    out = section.to(tl.int64) * OY * OX * COUT + (oy * OX + ox)[:, None] * COUT + channel[None, :]
    tl.store(y + out, first.to(y.dtype.element_ty), mask=kept[:, None])


@triton.jit
def _weight_gradient(
    x, gradient, sums, per_part, Z, Y, X, OZ, OY, OX,
    KZ: tl.constexpr, KY: tl.constexpr, KX: tl.constexpr, PZ: tl.constexpr, PY: tl.constexpr, PX: tl.constexpr,
    CIN: tl.constexpr, WIDTH: tl.constexpr, COUT: tl.constexpr, PARTS: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The sums over one part of a section, for all ROWS of the kernel along y; each input is read for one dz."""
    dz, chunk = tl.program_id(0), tl.program_id(1)
    section, first = chunk // PARTS, chunk % PARTS * per_part
    entry, channel = tl.arange(0, WIDTH), tl.arange(0, COUT)
    sum_0 = tl.zeros((WIDTH, COUT), tl.float32)
    sum_1 = tl.zeros((WIDTH, COUT), tl.float32)
    sum_2 = tl.zeros((WIDTH, COUT), tl.float32)
    slopes = gradient + section.to(tl.int64) * OY * OX * COUT
    for begin in range(0, per_part, BLOCK):
        voxel = first + begin + tl.arange(0, BLOCK)
        inside = voxel < OY * OX
        oy, ox = voxel // OX, voxel % OX
        slope = tl.load(slopes + voxel[:, None] * COUT + channel[None, :], mask=inside[:, None], other=0.0)
        part = _load_input(x, section, oy, ox, dz, 0, inside, Z, Y, X, OZ, KZ, KY, KX, PZ, PY, PX, CIN, WIDTH)
        sum_0 = tl.dot(tl.trans(part), slope, sum_0)
        if ROWS == 3:
            part = _load_input(x, section, oy, ox, dz, 1, inside, Z, Y, X, OZ, KZ, KY, KX, PZ, PY, PX, CIN, WIDTH)
            sum_1 = tl.dot(tl.trans(part), slope, sum_1)
            part = _load_input(x, section, oy, ox, dz, 2, inside, Z, Y, X, OZ, KZ, KY, KX, PZ, PY, PX, CIN, WIDTH)
            sum_2 = tl.dot(tl.trans(part), slope, sum_2)
    planes = tl.num_programs(0) * ROWS
    out = sums + ((chunk * planes + dz * ROWS) * WIDTH + entry[:, None]) * COUT + channel[None, :]
    tl.store(out, sum_0)
    if ROWS == 3:
        tl.store(out + WIDTH * COUT, sum_1)
        tl.store(out + 2 * WIDTH * COUT, sum_2)


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: Shape, relu: bool,
    block: int = _BLOCK, warps: int = 4, stages: int = 3,
) -> Tensor:  # fmt: skip
    """Return the convolution with stride 1, plus the bias, behind ReLU if asked.

    Args:
        x: (N, C_in, Z, Y, X), 16-bit or 32-bit floats; C_in is 1 or a power of two.
        weight: (C_out, C_in, *kernel) of the same type; C_out is a power of two, at least 16; the kernel has up to
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
    x, kernel = lines(x), weight.shape[2:]
    n, channels, *shape = x.shape
    out = [size + 2 * p - k + 1 for size, p, k in zip(shape, padding, kernel, strict=True)]
    rows = weight.permute(2, 3, 4, 1, 0).reshape(-1, len(weight))
    y = torch.empty((n, len(weight), *out), dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d)
    behind = (x if bias is None else bias, y, *shape, *out, *kernel, *padding)
    end = (len(weight), bias is not None, relu, block)
    if channels == 1:
        width = max(_LEAST, triton.next_power_of_2(len(rows)))
        rows = torch.nn.functional.pad(rows, (0, 0, 0, width - len(rows))).contiguous()
        grid = (triton.cdiv(out[1] * out[2], block), n * out[0])
        _convolve_grey[grid](x, rows, *behind, width, *end, num_warps=warps)
    else:
        rows = weight.permute(2, 3, 1, 4, 0)  # z, y, in, x, out
        rows = torch.nn.functional.pad(rows, (0, 0, 0, 4 - kernel[2]))
        voxels = (out[1] - 1) * (shape[2] + 2 * padding[2]) + out[2]
        grid = (triton.cdiv(voxels, block - kernel[2] + 1), n * out[0])
        _convolve[grid](x, rows.contiguous(), *behind, channels, *end, num_warps=warps, num_stages=stages)
    return y


def input_gradient(
    slope: Tensor, weight: Tensor, padding: Shape, block: int = _BLOCK, warps: int = 4, stages: int = 3
) -> Tensor:
    """Return the gradient of the input from that of the output, `slope` (N, C_out, Z', Y', X'); see `convolve`."""
    mirrored = weight.flip(2, 3, 4).transpose(0, 1)
    around = tuple(k - 1 - p for k, p in zip(weight.shape[2:], padding, strict=True))
    return convolve(slope, mirrored, None, around, False, block, warps, stages)


def weight_gradient(
    x: Tensor, slope: Tensor, kernel: Sequence[int], padding: Shape, block: int = 0, warps: int = 4, stages: int = 3
) -> Tensor:
    """Return the gradient of the weights, float32 (C_out, C_in, *kernel), from `slope`, that of the output."""
    x, slope = lines(x), lines(slope)
    (n, channels, *shape), (_, out_channels, *out) = x.shape, slope.shape
    block = block or (128 if channels == 1 else 64)  # the fastest of those tried on an H200
    depth, rows = (1, 1) if channels == 1 else kernel[:2]
    used = math.prod(kernel) if channels == 1 else kernel[2] * channels
    width = max(_LEAST, triton.next_power_of_2(used))
    sections, blocks = n * out[0], triton.cdiv(out[1] * out[2], block)
    parts = min(blocks, triton.cdiv(_CHUNKS, sections))
    per_part = triton.cdiv(blocks, parts) * block
    sums = torch.empty((sections * parts, depth * rows, width, out_channels), dtype=torch.float32, device=x.device)
    _weight_gradient[(depth, sections * parts)](
        x, slope, sums, per_part, *shape, *out, *kernel, *padding, channels, width, out_channels, parts, rows,
        block, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    total = sums.sum(0)[:, :used].reshape(*kernel, channels, out_channels)
    return total.permute(4, 3, 0, 1, 2)
