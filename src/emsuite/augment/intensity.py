"""Brightness and contrast."""

from typing import Literal

import numpy as np
import torch

from emsuite.common.arrays import to_device
from emsuite.common.settings import Range, Settings


class Intensity(Settings):
    """mean + (raw - mean) * scale + shift, clipped to [0, 1]."""

    name: Literal["intensity"]
    scale: Range = (0.9, 1.1)
    """[lowest, highest] factor of the contrast, drawn uniformly."""
    shift: Range = (-0.1, 0.1)
    """[lowest, highest] change of the brightness, raw being 0 to 1."""
    per_section: bool = False
    """Draw anew for every z-section, with its own mean, instead of once for the whole input."""


def change_intensity(settings: Intensity, raw: torch.Tensor, random: np.random.Generator) -> None:
    """Change `raw` (Z, Y, X) float32 0 to 1 in place."""
    draws = raw.shape[0] if settings.per_section else 1
    scale = _column(random.uniform(*settings.scale, draws), raw)
    shift = _column(random.uniform(*settings.shift, draws), raw)
    mean = raw.mean(dim=(1, 2) if settings.per_section else (0, 1, 2), keepdim=True)
    raw.mul_(scale).add_(mean * (1 - scale) + shift).clamp_(0, 1)


def _column(numbers: np.ndarray, raw: torch.Tensor) -> torch.Tensor:
    return to_device(torch.from_numpy(numbers.astype(np.float32)), raw.device)[:, None, None]
