"""Weights that make the rare and the frequent value of a binary target count the same."""

import torch

from emsuite.errors import BadInput
from emsuite.tensors import Array, as_given, as_tensor


def balance_weights(targets: Array, mask: Array | None = None, clip: tuple[float, float] = (0.05, 0.95)) -> Array:
    """Weight of each entry: 1 / (2 f) with f the share of its value (0, or not 0) among the masked-in entries.

    targets: numbers of any shape, all channels together; mask: 0 where not to count, the same shape. Shares are
    clipped to `clip`. -> float32, 0 outside the mask. As gunpowder's BalanceLabels, bit for bit. Raises BadInput on
    a mask of another shape.
    """
    ones = as_tensor(targets) != 0
    inside = torch.ones_like(ones) if mask is None else as_tensor(mask) != 0
    if inside.shape != ones.shape:
        raise BadInput(f"targets {tuple(ones.shape)} and mask {tuple(inside.shape)}: expected the same shape")
    total, positive = inside.sum(dtype=torch.float64), (ones & inside).sum(dtype=torch.float64)
    low, high = clip
    weight_one = (0.5 / (positive / total).clamp(low, high)).float()
    weight_zero = (0.5 / ((total - positive) / total).clamp(low, high)).float()
    weights = torch.where(ones, weight_one, weight_zero)
    return as_given(targets, torch.where(inside, weights, torch.zeros_like(weights)))
