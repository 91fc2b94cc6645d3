"""TODO data/normalization.py."""

import torch
from torch import Tensor


def normalise(raw: Tensor) -> Tensor:
    """Raw in [0, 1] as what the networks read, [-1, 1]."""
    return raw * 2.0 - 1.0


def to_unit_range(raw: Tensor) -> Tensor:
    """uint8 as float32 in [0, 1]; floats, which lie there already, as float32."""
    return raw.float().div_(255.0) if raw.dtype == torch.uint8 else raw.float()


def normalised(raw: Tensor) -> Tensor:
    """uint8, or floats in [0, 1], as networks read them: float32 in [-1, 1], in one new tensor."""
    voxels = raw.to(torch.float32, copy=True)
    return (voxels.div_(255.0) if raw.dtype == torch.uint8 else voxels).mul_(2.0).sub_(1.0)
