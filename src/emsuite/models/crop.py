"""Skip connections: crops of features on the way down, joined with upsampled ones on the way up.

    level 0   x ---- centre ------------> [centre, relu(blocks)]
              | pool                          ^ rearranged
    level 1   ...                           blocks

Where a GPU computes in 16 bits, the kernels of `skip_triton` do each of the two in one pass over memory.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from emsuite.common import device
from emsuite.common.arrays import Shape


def centre_crop(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the centre of `x` over its last axes, of size `shape`.

    The crop begins at (size - target) // 2. So an odd voxel is cut from the far side.
    """
    for axis, target in zip(range(x.ndim - len(shape), x.ndim), shape, strict=True):
        if target != x.shape[axis]:  # the gradient of a slice takes an array of zeros
            x = x.narrow(axis, (x.shape[axis] - target) // 2, target)
    return x


def crop_and_pool(x: Tensor, shape: Shape, factor: Shape) -> tuple[Tensor, Tensor]:
    """Return the centre of `x` (N, C, Z, Y, X) of size `shape`, and `x` reduced by maxima over blocks of `factor`.

    Where no gradients are wanted, `x` itself stands for its centre, which `join` cuts out.

    The gradient of both is one array. torch by itself fills an array of the size of `x` with zeros for the gradient of
    the crop, copies the gradient into it and adds the other one: a tenth of a training step.
    """
    if not torch.is_grad_enabled():
        return x, _pool(x, factor)[0]
    return _CropAndPool.apply(x, shape, factor)


def join(skip: Tensor, blocks: Tensor, factor: Shape) -> Tensor:
    """Return the centre of `skip`, and behind its channels the rectified blocks, rearranged.

    Args:
        skip: (N, S, Z, Y, X), as large as the result or larger.
        blocks: (N, z, y, x, voxels of a block * C): what `Upsample.blocks` returns.
        factor: voxels of a block, z y x.

    Returns:
        (N, S + C, *(z, y, x) * factor), channels last in memory.
    """
    return _Join.apply(skip, blocks, factor)


def arrange(blocks: Tensor, factor: Sequence[int]) -> Tensor:
    """Return blocks (N, *shape, voxels of a block * C) as (N, C, *shape * factor), channels last in memory."""
    n, *shape, _ = blocks.shape
    dims = len(shape)
    out = blocks.shape[-1] // torch.Size(factor).numel()
    pairs = zip(range(1, dims + 1), range(dims + 1, 2 * dims + 1), strict=True)
    order = [0, *(axis for pair in pairs for axis in pair), 2 * dims + 1]
    fine = [length * step for length, step in zip(shape, factor, strict=True)]
    return blocks.reshape(n, *shape, *factor, out).permute(*order).reshape(n, *fine, out).movedim(-1, 1)


def _pool(x: Tensor, factor: Shape) -> tuple[Tensor, Tensor | None]:
    """Return the maxima, and where they are, unless the kernels find them again."""
    if device.runs_triton(x):
        from emsuite.models import skip_triton

        return skip_triton.pool(x, factor), None
    pooled, index = torch.ops.aten.max_pool3d_with_indices(x, factor, factor)
    return pooled, index


class _CropAndPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: Shape, factor: Shape) -> tuple[Tensor, Tensor]:
        pooled, index = _pool(x, factor)
        ctx.factor = factor
        ctx.save_for_backward(x, pooled if index is None else index)
        ctx.on_gpu = index is None
        return centre_crop(x, shape).clone(memory_format=torch.channels_last_3d), pooled

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        cropped, pooled = (gradient.contiguous(memory_format=torch.channels_last_3d) for gradient in gradients)
        x, maxima = ctx.saved_tensors
        if ctx.on_gpu:
            from emsuite.models import skip_triton

            return skip_triton.pool_backward(pooled, cropped, x, maxima, ctx.factor), None, None
        gradient = torch.ops.aten.max_pool3d_with_indices_backward(
            pooled, x, ctx.factor, ctx.factor, (0, 0, 0), (1, 1, 1), False, maxima
        )
        centre_crop(gradient, cropped.shape[2:]).add_(cropped)
        return gradient, None, None


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, skip: Tensor, blocks: Tensor, factor: Shape) -> Tensor:
        ctx.factor, ctx.shape, ctx.channels = factor, skip.shape, skip.shape[1]
        if device.runs_triton(blocks):
            from emsuite.models import skip_triton

            out = skip_triton.join(skip, blocks, factor)
        else:
            up = arrange(blocks, factor).relu()
            out = torch.cat([centre_crop(skip, up.shape[2:]), up], dim=1)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (out,) = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last_3d)
        if device.runs_triton(out):
            from emsuite.models import skip_triton

            to_skip, to_blocks = skip_triton.join_backward(gradient, out, ctx.channels, ctx.factor)
        else:
            to_skip = gradient[:, : ctx.channels]
            slope = gradient[:, ctx.channels :] * (out[:, ctx.channels :] > 0)
            to_blocks = _blocks(slope, ctx.factor)
        if to_skip.shape != ctx.shape:
            whole = to_skip.new_zeros(ctx.shape)
            centre_crop(whole, to_skip.shape[2:]).copy_(to_skip)
            to_skip = whole
        return to_skip, to_blocks, None


def _blocks(x: Tensor, factor: Shape) -> Tensor:
    """Return the reverse of `arrange`."""
    n, channels, *fine = x.shape
    pairs = [size for length, step in zip(fine, factor, strict=True) for size in (length // step, step)]
    parted = x.reshape(n, channels, *pairs).permute(0, 2, 4, 6, 3, 5, 7, 1)
    return parted.reshape(*parted.shape[:4], -1)
