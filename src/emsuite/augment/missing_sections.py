"""Faults of single sections: missing, dark, of low contrast, or hidden by an artifact of another section.

Sections that lie beside their place are those of `emsuite.augment.elastic`, by `slip` and `shift`.
"""

from typing import Literal, Protocol, Self

import numpy as np
import torch
from pydantic import PrivateAttr, model_validator

from emsuite.augment.augmentation import ValueAugmentation
from emsuite.common.settings import NonNegative, NonNegativeRange, Probability, Settings


class ArtifactVolume(Settings):
    """Sections with artifacts, such as folds and stains, of the voxel size of the data set."""

    volume: str
    """The container, as `--data`; a relative path counts from the folder of the command, or else of the project."""
    raw: str = "defect_sections/raw"
    """The array of their grey values."""
    opacity: str = "defect_sections/mask"
    """The array that says how much of an artifact hides what lies below: uint8, 0 and 1 or 0 to 255, or floats up to 1.
    """


class ArtifactSource(Protocol):
    """Artifacts to lay over sections."""

    def draw(self, random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return values and opacity of an artifact, (Y, X) float32 in [0, 1], as large as a section of the samples."""


class MissingSections(ValueAugmentation):
    """Sections lost or spoilt in cutting, staining or imaging, as in gunpowder's DefectAugment. Each has one fault."""

    name: Literal["missing_sections"]
    missing: Probability = 0.05
    """Probability that all voxels of a section are 0."""
    low_contrast: Probability = 0.0
    """Probability that a section keeps only the fraction `contrast` of its contrast."""
    contrast: NonNegative = 0.1
    """A section of low contrast becomes mean + (raw - mean) * contrast."""
    artifact: Probability = 0.0
    """Probability that an artifact lies over a section: raw * (1 - opacity) + artifact * opacity."""
    artifacts: ArtifactVolume | None = None
    """Where artifacts are taken from."""
    dark: Probability = 0.0
    """Probability that a section is dark."""
    brightness: NonNegativeRange = (0.2, 0.6)
    """[lowest, highest] factor of the values of a dark section, drawn uniformly."""
    _source: ArtifactSource | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.missing + self.low_contrast + self.artifact + self.dark > 1:
            raise ValueError("missing, low_contrast, artifact and dark exclude each other: expected a sum of at most 1")
        if self.artifact and self.artifacts is None:
            raise ValueError("artifact: expected artifacts too, the volume that they are taken from")
        return self

    def with_source(self, source: ArtifactSource) -> "MissingSections":
        """Return the augmentation with the artifacts of its volume, which it cannot read itself."""
        copy = self.model_copy()
        copy._source = source
        return copy

    def apply(self, raw: torch.Tensor, random: np.random.Generator) -> None:
        """Change `raw` (Z, Y, X) float32 in [0, 1] in place."""
        draw = random.random(raw.shape[0])
        ends = np.cumsum([self.missing, self.low_contrast, self.artifact, self.dark])
        faults = np.searchsorted(ends, draw, side="right")
        for number in np.flatnonzero(draw < ends[-1]):
            (self._lose, self._pale, self._hide, self._darken)[faults[number]](raw[number], random)

    def _lose(self, section: torch.Tensor, random: np.random.Generator) -> None:
        section.zero_()

    def _pale(self, section: torch.Tensor, random: np.random.Generator) -> None:
        mean = section.mean()
        section.sub_(mean).mul_(self.contrast).add_(mean).clamp_(0, 1)

    def _hide(self, section: torch.Tensor, random: np.random.Generator) -> None:
        assert self._source is not None, "artifacts were not read"
        values, opacity = self._source.draw(random)
        section.lerp_(values, opacity)

    def _darken(self, section: torch.Tensor, random: np.random.Generator) -> None:
        section.mul_(random.uniform(*self.brightness)).clamp_(0, 1)
