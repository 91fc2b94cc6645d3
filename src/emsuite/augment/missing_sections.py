"""Sections that are missing or pale."""

from typing import Literal, Self

import numpy as np
import torch
from pydantic import model_validator

from emsuite.common.settings import NonNegative, Probability, Settings


class MissingSections(Settings):
    """Sections lost in cutting or imaging, as gunpowder's DefectAugment makes them."""

    name: Literal["missing_sections"]
    missing: Probability = 0.05
    """Probability of a section to be 0 throughout."""
    low_contrast: Probability = 0.0
    """Probability of a section to keep only `contrast` of its contrast."""
    contrast: NonNegative = 0.1
    """mean + (raw - mean) * contrast in a pale section."""

    @model_validator(mode="after")
    def _probabilities(self) -> Self:
        if self.missing + self.low_contrast > 1:
            raise ValueError("missing and low_contrast exclude each other: expected a sum of at most 1")
        return self


def lose_sections(settings: MissingSections, raw: torch.Tensor, random: np.random.Generator) -> None:
    """Change `raw` (Z, Y, X) float32 0 to 1 in place."""
    kind = random.random(raw.shape[0])
    pale = (kind >= settings.missing) & (kind < settings.missing + settings.low_contrast)
    for section in np.flatnonzero(pale):
        mean = raw[section].mean()
        raw[section].sub_(mean).mul_(settings.contrast).add_(mean).clamp_(0, 1)
    raw[np.flatnonzero(kind < settings.missing)] = 0
