"""Gaussian noise."""

from typing import Literal

import numpy as np
import torch

from emsuite.common.settings import NonNegativeRange, Settings


class Noise(Settings):
    """raw + normal noise of one standard deviation for the whole input, clipped to [0, 1]."""

    name: Literal["noise"]
    sigma: NonNegativeRange = (0.0, 0.05)
    """[lowest, highest] standard deviation, raw being 0 to 1, drawn uniformly."""


def add_noise(settings: Noise, raw: torch.Tensor, random: np.random.Generator) -> None:
    """Change `raw` (Z, Y, X) float32 0 to 1 in place."""
    generator = torch.Generator(raw.device).manual_seed(int(random.integers(2**63)))
    sigma = random.uniform(*settings.sigma)
    raw.add_(torch.randn(raw.shape, generator=generator, device=raw.device), alpha=sigma).clamp_(0, 1)
