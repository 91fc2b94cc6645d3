"""Crops of features, as skip connections carry them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def centre_crop(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the centre of `x` over its last axes, of size `shape`.

    The crop begins at (size - target) // 2. So an odd voxel is cut from the far side.
    """
    for axis, target in zip(range(x.ndim - len(shape), x.ndim), shape, strict=True):
        x = x.narrow(axis, (x.shape[axis] - target) // 2, target)
    return x


def crop_and_pool(x: Tensor, shape: Sequence[int], factor: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the centre of `x` (N, C, Z, Y, X) of size `shape`, and `x` reduced by maxima over blocks of `factor`.

    The gradient of both is one array. torch by itself fills an array of the size of `x` with zeros for the gradient of
    the crop, copies the gradient into it and adds the other one: a tenth of a training step.
    """
    return _CropAndPool.apply(x, tuple(shape), tuple(factor))


class _CropAndPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: tuple[int, ...], factor: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        pooled, index = torch.ops.aten.max_pool3d_with_indices(x, factor, factor)
        ctx.shape, ctx.factor = shape, factor
        ctx.save_for_backward(x, index)
        return centre_crop(x, shape).clone(memory_format=torch.channels_last_3d), pooled

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, index = ctx.saved_tensors
        cropped, pooled = gradients
        none, one = (0, 0, 0), (1, 1, 1)
        gradient = torch.ops.aten.max_pool3d_with_indices_backward(
            pooled, x, ctx.factor, ctx.factor, none, one, False, index
        )
        centre_crop(gradient, ctx.shape).add_(cropped)
        return gradient, None, None
