"""Brightness and contrast."""

from typing import Literal

from emsuite.augment_ranges import Range
from emsuite.settings import Settings


class Intensity(Settings):
    """mean + (raw - mean) * scale + shift, clipped to [0, 1]."""

    name: Literal["intensity"]
    scale: Range = (0.9, 1.1)
    """[lowest, highest] factor of the contrast, drawn uniformly."""
    shift: Range = (-0.1, 0.1)
    """[lowest, highest] change of the brightness, raw being 0 to 1."""
    per_section: bool = False
    """Draw anew for every z-section, with its own mean, instead of once for the whole input."""
