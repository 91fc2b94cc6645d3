"""Weights that make the rare and the frequent value of a binary target count the same."""

import numpy as np
import torch

from emsuite.errors import BadInput
from emsuite.tensors import Array, as_given, as_numbers, as_tensor

_EXACT = 1 << 24  # float32 counts up to here


def balance_weights(targets: Array, mask: Array | None = None, clip: tuple[float, float] = (0.05, 0.95)) -> Array:
    """Weight of each entry: 1 / (2 f) with f the share of its value (0, or not 0) among the masked-in entries.

    targets: numbers of any shape, all channels together; mask: 0 where not to count, the same shape. Shares are
    clipped to `clip`. -> float32, 0 outside the mask. As gunpowder's BalanceLabels, bit for bit. Raises BadInput on
    a mask of another shape.
    """
    ones = _numbers(targets)
    inside = torch.ones_like(ones) if mask is None else _numbers(mask)
    if inside.shape != ones.shape:
        raise BadInput(f"targets {tuple(ones.shape)} and mask {tuple(inside.shape)}: expected the same shape")
    total, positive = _products(inside, inside).clamp(min=1), _products(ones, inside)
    low, high = clip
    weight_one = (0.5 / (positive / total).clamp(low, high)).float()
    weight_zero = (0.5 / ((total - positive) / total).clamp(low, high)).float()
    # products with 0 and 1 are exact, and many times faster than a choice by `torch.where`
    zeros = (1 - ones).mul_(weight_zero)
    return as_given(targets, ones.mul_(weight_one).add_(zeros).mul_(inside))


def _numbers(array: np.ndarray | torch.Tensor) -> torch.Tensor:
    """0 where the array is 0, else 1: float32, never the array itself."""
    tensor = array if isinstance(array, torch.Tensor) else as_tensor(array)
    return as_numbers(tensor if tensor.dtype == torch.bool else tensor != 0)


def _products(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """How many entries are 1 in both."""
    pairs = zip(first.flatten().split(_EXACT), second.flatten().split(_EXACT), strict=True)
    return torch.stack([torch.dot(a, b) for a, b in pairs]).double().sum()
