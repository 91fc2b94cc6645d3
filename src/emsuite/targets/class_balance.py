"""Weights that make the rare and the frequent value of a binary target count the same."""

import numpy as np
import torch

from emsuite.common.arrays import Array, as_numbers, as_tensor, like_input
from emsuite.common.errors import BadInput

_EXACT = 1 << 24  # float32 counts up to here


def balance_weights(targets: Array, mask: Array | None = None, clip: tuple[float, float] = (0.05, 0.95)) -> Array:
    """Weight of each entry: 1 / (2 f) with f the share of its value (0, or not 0) among the masked-in entries.

    targets: numbers of any shape, all channels together; mask: 0 where not to count, the same shape. Shares are
    clipped to `clip`. -> float32, 0 outside the mask. As gunpowder's BalanceLabels, bit for bit. Raises BadInput on
    a mask of another shape.
    """
    values = targets if isinstance(targets, torch.Tensor) else as_tensor(targets)
    inside = None if mask is None else _there(mask)
    if inside is not None and inside.shape != values.shape:
        raise BadInput(f"targets {tuple(values.shape)} and mask {tuple(inside.shape)}: expected the same shape")
    weigh = _weigh_with_loops if values.device.type == "cpu" else weigh_with_torch
    return like_input(targets, weigh(values, inside, clip))


def weigh_with_torch(values: torch.Tensor, inside: torch.Tensor | None, clip: tuple[float, float]) -> torch.Tensor:
    """The weights of `values`, of which all, or those `inside` (bool), count; on a GPU nothing waits for the counts."""
    ones = as_numbers(_there(values))
    counts = torch.ones_like(ones) if inside is None else as_numbers(inside)
    total, positive = _products(counts, counts), _products(ones, counts)
    one, zero = (weight.float() for weight in _weights(total, positive, clip))
    # products with 0 and 1 are exact, and many times faster than a choice by `torch.where`
    zeros = (1 - ones).mul_(zero)
    return ones.mul_(one).add_(zeros).mul_(counts)


def _weigh_with_loops(values: torch.Tensor, inside: torch.Tensor | None, clip: tuple[float, float]) -> torch.Tensor:
    from emsuite.targets.loops import count, weigh

    result = torch.empty(values.shape, dtype=torch.float32)
    ones = values.contiguous().view(-1).numpy()
    counted = None if inside is None else inside.contiguous().view(torch.uint8).view(-1).numpy()
    total, positive = (torch.tensor(number, dtype=torch.float64) for number in count(ones, counted))
    one, zero = (np.float32(weight) for weight in _weights(total, positive, clip))
    weigh(ones, counted, one, zero, result.view(-1).numpy())
    return result


def _weights(total: torch.Tensor, positive: torch.Tensor, clip: tuple[float, float]) -> tuple[torch.Tensor, ...]:
    """Of a one and of a zero, float64, where `positive` of `total` are ones."""
    total = total.clamp(min=1)
    return tuple(0.5 / (number / total).clamp(*clip) for number in (positive, total - positive))


def _there(array: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Where the array is not 0: bool."""
    tensor = array if isinstance(array, torch.Tensor) else as_tensor(array)
    return tensor if tensor.dtype == torch.bool else tensor != 0


def _products(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """How many entries are 1 in both, float64."""
    pairs = zip(first.flatten().split(_EXACT), second.flatten().split(_EXACT), strict=True)
    return torch.stack([torch.dot(a, b) for a, b in pairs]).double().sum()
