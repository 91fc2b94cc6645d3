"""Blurred input, as from a microscope that is out of focus."""

from math import ceil
from typing import Literal

import numpy as np
import torch
from torch.nn.functional import conv2d, pad

from emsuite.augment.augmentation import ValueAugmentation
from emsuite.common.settings import NonNegativeRange, Probability


class Blur(ValueAugmentation):
    """A Gaussian blur in y and x, with one width for the whole input."""

    name: Literal["blur"]
    probability: Probability = 0.5
    """Probability that an input is blurred."""
    sigma: NonNegativeRange = (0.0, 1.0)
    """[lowest, highest] standard deviation, voxels, drawn uniformly."""

    def apply(self, raw: torch.Tensor, random: np.random.Generator) -> None:
        """Blur `raw` (Z, Y, X) float32 in place. Each section continues as its mirror image beyond its borders."""
        is_blurred, sigma = random.random() < self.probability, random.uniform(*self.sigma)
        radius = min(ceil(3 * sigma), raw.shape[1] - 1, raw.shape[2] - 1)
        if not is_blurred or radius < 1:
            return
        distance = torch.arange(-radius, radius + 1, dtype=torch.float32, device=raw.device)
        kernel = torch.softmax(-(distance**2) / (2 * sigma**2), dim=0)
        for section in raw:
            padded = pad(section[None, None], (radius,) * 4, mode="reflect")
            section.copy_(conv2d(conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None])[0, 0])
