"""Weights that make the rare and the frequent value of a binary target count the same."""

import numpy as np
import torch

from emsuite.errors import BadInput
from emsuite.tensors import Array, as_given, as_numbers, as_tensor


def balance_weights(targets: Array, mask: Array | None = None, clip: tuple[float, float] = (0.05, 0.95)) -> Array:
    """Weight of each entry: 1 / (2 f) with f the share of its value (0, or not 0) among the masked-in entries.

    targets: numbers of any shape, all channels together; mask: 0 where not to count, the same shape. Shares are
    clipped to `clip`. -> float32, 0 outside the mask. As gunpowder's BalanceLabels, bit for bit. Raises BadInput on
    a mask of another shape.
    """
    ones = _truth(targets)
    inside = torch.ones_like(ones) if mask is None else _truth(mask)
    if inside.shape != ones.shape:
        raise BadInput(f"targets {tuple(ones.shape)} and mask {tuple(inside.shape)}: expected the same shape")
    total, positive = _count(inside).clamp(min=1), _count(ones & inside)
    low, high = clip
    weight_one = (0.5 / (positive / total).clamp(low, high)).float()
    weight_zero = (0.5 / ((total - positive) / total).clamp(low, high)).float()
    # products with 0 and 1 are exact, and many times faster than a choice by `torch.where`
    weights, zeros = as_numbers(ones), as_numbers(~ones)
    weights.mul_(weight_one).add_(zeros.mul_(weight_zero)).mul_(as_numbers(inside))
    return as_given(targets, weights)


def _count(there: torch.Tensor) -> torch.Tensor:
    return there.view(torch.uint8).sum(dtype=torch.int32).double()


def _truth(array: np.ndarray | torch.Tensor) -> torch.Tensor:
    # a comparison takes as long as all the rest
    return array if isinstance(array, torch.Tensor) and array.dtype == torch.bool else as_tensor(array) != 0
