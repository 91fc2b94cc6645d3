"""Sections out of focus."""

from math import ceil
from typing import Literal

import numpy as np
import torch
from torch.nn.functional import conv2d, pad

from emsuite.common.settings import NonNegativeRange, Probability, Settings


class Blur(Settings):
    """A Gaussian blur in y and x, of one width for the whole input."""

    name: Literal["blur"]
    probability: Probability = 0.5
    """Probability of an input to be blurred."""
    sigma: NonNegativeRange = (0.0, 1.0)
    """[lowest, highest] standard deviation, voxels, drawn uniformly."""


def blur(settings: Blur, raw: torch.Tensor, random: np.random.Generator) -> None:
    """Change `raw` (Z, Y, X) float32 in place; beyond its borders it counts as mirrored."""
    blurred, sigma = random.random() < settings.probability, random.uniform(*settings.sigma)
    radius = min(ceil(3 * sigma), raw.shape[1] - 1, raw.shape[2] - 1)
    if not blurred or radius < 1:
        return
    distance = torch.arange(-radius, radius + 1, dtype=torch.float32, device=raw.device)
    kernel = torch.softmax(-(distance**2) / (2 * sigma**2), dim=0)
    for section in raw:
        padded = pad(section[None, None], (radius,) * 4, mode="reflect")
        section.copy_(conv2d(conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None])[0, 0])
