"""Sections out of focus."""

from typing import Literal

from emsuite.augment_ranges import NonNegativeRange, Probability
from emsuite.settings import Settings


class Blur(Settings):
    """A Gaussian blur in y and x, of one width for the whole input."""

    name: Literal["blur"]
    probability: Probability = 0.5
    """Probability of an input to be blurred."""
    sigma: NonNegativeRange = (0.0, 1.0)
    """[lowest, highest] standard deviation, voxels, drawn uniformly."""
