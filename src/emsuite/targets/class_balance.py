"""Weights under which the rare and the frequent value of a binary target count the same."""

import numpy as np
import torch

from emsuite.common.arrays import Array, as_numbers, as_tensor, like_input
from emsuite.common.errors import BadInput

_EXACT = 1 << 24  # float32 counts up to here


def balance_weights(targets: Array, mask: Array | None = None, clip: tuple[float, float] = (0.05, 0.95)) -> Array:
    """Return the weight 1 / (2 f) of each entry, with f the share of its value (0, or not 0) inside the mask.

    Equal to gunpowder's BalanceLabels, bit for bit.

    Args:
        targets: numbers of any shape, all channels together.
        mask: of the same shape, 0 where an entry does not count; None: all count.
        clip: shares are clipped to this range.

    Returns:
        float32 of the same shape, 0 outside the mask.

    Raises:
        BadInput: the mask has another shape.
    """
    values = targets if isinstance(targets, torch.Tensor) else as_tensor(targets)
    inside = None if mask is None else _is_set(mask)
    if inside is not None and inside.shape != values.shape:
        raise BadInput(f"targets {tuple(values.shape)} and mask {tuple(inside.shape)}: expected the same shape")
    compute = _weights_with_loops if values.device.type == "cpu" else weights_with_torch
    return like_input(targets, compute(values, inside, clip))


def weights_with_torch(values: torch.Tensor, inside: torch.Tensor | None, clip: tuple[float, float]) -> torch.Tensor:
    """Return the weights of `values` by torch alone; `inside` (bool) is the mask. The host never waits for a GPU."""
    ones = as_numbers(_is_set(values))
    counts = torch.ones_like(ones) if inside is None else as_numbers(inside)
    total, positive = _products(counts, counts), _products(ones, counts)
    one, zero = (weight.float() for weight in _weights(total, positive, clip))
    # Products with 0 and 1 are exact, and many times faster than `torch.where`.
    zeros = (1 - ones).mul_(zero)
    return ones.mul_(one).add_(zeros).mul_(counts)


def _weights_with_loops(values: torch.Tensor, inside: torch.Tensor | None, clip: tuple[float, float]) -> torch.Tensor:
    from emsuite.targets.loops import count_loop, weight_loop

    result = torch.empty(values.shape, dtype=torch.float32)
    ones = values.contiguous().view(-1).numpy()
    counted = None if inside is None else inside.contiguous().view(torch.uint8).view(-1).numpy()
    total, positive = (torch.tensor(number, dtype=torch.float64) for number in count_loop(ones, counted))
    one, zero = (np.float32(weight) for weight in _weights(total, positive, clip))
    weight_loop(ones, counted, one, zero, result.view(-1).numpy())
    return result


def _weights(total: torch.Tensor, positive: torch.Tensor, clip: tuple[float, float]) -> tuple[torch.Tensor, ...]:
    """Return the weights of a one and of a zero, float64, if `positive` of `total` entries are ones."""
    total = total.clamp(min=1)
    return tuple(0.5 / (number / total).clamp(*clip) for number in (positive, total - positive))


def _is_set(array: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Return where the array is not 0, as bool."""
    tensor = array if isinstance(array, torch.Tensor) else as_tensor(array)
    return tensor if tensor.dtype == torch.bool else tensor != 0


def _products(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the number of entries that are 1 in both, float64."""
    pairs = zip(first.flatten().split(_EXACT), second.flatten().split(_EXACT), strict=True)
    return torch.stack([torch.dot(a, b) for a, b in pairs]).double().sum()
