"""Elastic deformation: jittered control points, rotation in y-x, slipped and shifted sections."""

from typing import Literal, Self

from pydantic import NonNegativeInt, PositiveInt, model_validator

from emsuite.augment_ranges import NonNegative, Probability, Range
from emsuite.settings import Settings


class Elastic(Settings):
    """What the published networks train with; the meaning of each value is that of gunpowder's ElasticAugment."""

    name: Literal["elastic"]
    control_point_spacing: tuple[PositiveInt, PositiveInt, PositiveInt]
    """Distance of the control points, voxels, z y x."""
    jitter_sigma: tuple[NonNegative, NonNegative, NonNegative]
    """Standard deviation of a control point's displacement, voxels, z y x; 0 leaves an axis straight."""
    rotation: Range = (0.0, 0.0)
    """[lowest, highest] angle in the y-x plane, radians, drawn uniformly."""
    slip: Probability = 0.0
    """Probability of a section to lie askew alone."""
    shift: Probability = 0.0
    """Probability of a section to move together with all that follow."""
    max_misalign: NonNegativeInt = 0
    """Furthest that one slip or shift moves in y and in x, voxels; drawn uniformly from the integers up to it."""
    subsample: PositiveInt = 1
    """The deformation is smooth on every n-th voxel and linear between; 1 is smooth everywhere."""

    @model_validator(mode="after")
    def _probabilities(self) -> Self:
        if self.slip + self.shift > 1:
            raise ValueError("slip and shift exclude each other: expected a sum of at most 1")
        return self
