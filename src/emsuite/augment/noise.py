"""Additive Gaussian noise."""

from typing import Literal

import numpy as np
import torch

from emsuite.augment.augmentation import ValueAugmentation
from emsuite.common.settings import NonNegativeRange


class Noise(ValueAugmentation):
    """raw + normal noise, clipped to [0, 1].

    The noise is that of gunpowder's NoiseAugment with `mode="gaussian"`, except that its standard deviation is drawn
    for each sample. One draw holds for the whole input.
    """

    name: Literal["noise"]
    sigma: NonNegativeRange = (0.0, 0.05)
    """[lowest, highest] standard deviation, for raw in [0, 1], drawn uniformly."""

    def apply(self, raw: torch.Tensor, random: np.random.Generator) -> None:
        """Change `raw` (Z, Y, X) float32 in [0, 1] in place.

        The noise is drawn on the device of `raw`: a CPU and a GPU add different noise for the same `random`.
        """
        generator = torch.Generator(raw.device).manual_seed(int(random.integers(2**63)))
        sigma = random.uniform(*self.sigma)
        raw.add_(torch.randn(raw.shape, generator=generator, device=raw.device), alpha=sigma).clamp_(0, 1)
