"""Labels in the place of a transferred image, with the context that targets need."""

from collections.abc import Sequence

import torch
from torch import Tensor


def labels_around(labels: Tensor, shape: Sequence[int], context: tuple[Sequence[int], Sequence[int]]) -> Tensor:
    """Return the middle of labels with context around it; beyond their border, labels go on as they end there.

    Args:
        labels: (B, Z, Y, X).
        shape: of the middle, voxels z y x.
        context: voxels before and behind it.

    Returns:
        (B, *shape + context), as `labels`.
    """
    before, behind = context
    for axis, (n, m, low, high) in enumerate(zip(labels.shape[1:], shape, before, behind, strict=True), start=1):
        begin = (n - m) // 2
        index = torch.arange(begin - low, begin + m + high, device=labels.device).clamp_(0, n - 1)
        labels = labels.index_select(axis, index)
    return labels
