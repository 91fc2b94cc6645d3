"""Gaussian noise."""

from typing import Literal

from emsuite.augment_ranges import NonNegativeRange
from emsuite.settings import Settings


class Noise(Settings):
    """raw + normal noise of one standard deviation for the whole input, clipped to [0, 1]."""

    name: Literal["noise"]
    sigma: NonNegativeRange = (0.0, 0.05)
    """[lowest, highest] standard deviation, raw being 0 to 1, drawn uniformly."""
