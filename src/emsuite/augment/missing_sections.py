"""Sections that are missing or have low contrast."""

from typing import Literal, Self

import numpy as np
import torch
from pydantic import model_validator

from emsuite.augment.augmentation import ValueAugmentation
from emsuite.common.settings import NonNegative, Probability


class MissingSections(ValueAugmentation):
    """Sections lost in cutting or imaging, as in gunpowder's DefectAugment."""

    name: Literal["missing_sections"]
    missing: Probability = 0.05
    """Probability that all voxels of a section are 0."""
    low_contrast: Probability = 0.0
    """Probability that a section keeps only the fraction `contrast` of its contrast."""
    contrast: NonNegative = 0.1
    """A section of low contrast becomes mean + (raw - mean) * contrast."""

    @model_validator(mode="after")
    def _probabilities(self) -> Self:
        if self.missing + self.low_contrast > 1:
            raise ValueError("missing and low_contrast exclude each other: expected a sum of at most 1")
        return self

    def apply(self, raw: torch.Tensor, random: np.random.Generator) -> None:
        """Change `raw` (Z, Y, X) float32 in [0, 1] in place."""
        draw = random.random(raw.shape[0])
        has_low_contrast = (draw >= self.missing) & (draw < self.missing + self.low_contrast)
        for section in np.flatnonzero(has_low_contrast):
            mean = raw[section].mean()
            raw[section].sub_(mean).mul_(self.contrast).add_(mean).clamp_(0, 1)
        raw[np.flatnonzero(draw < self.missing)] = 0
