"""Sections that are missing or pale."""

from typing import Literal, Self

from pydantic import model_validator

from emsuite.augment_ranges import NonNegative, Probability
from emsuite.settings import Settings


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
