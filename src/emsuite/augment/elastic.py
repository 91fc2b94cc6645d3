"""Elastic deformation: jittered control points, rotation in the y-x plane, slipped and shifted sections."""

from functools import lru_cache
from math import cos, sin
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, PositiveInt, model_validator
from scipy.ndimage import zoom

from emsuite.augment.augmentation import GeometricAugmentation
from emsuite.augment.warp import ControlPointField, SectionShifts, WarpStep, largest_sum
from emsuite.common.arrays import Shape
from emsuite.common.geometry import Roi
from emsuite.common.settings import NonNegative, Probability, Range


class Elastic(GeometricAugmentation):
    """The deformation that the published networks were trained with.

    The settings mean the same as those of gunpowder's ElasticAugment.
    """

    name: Literal["elastic"]
    control_point_spacing: tuple[PositiveInt, PositiveInt, PositiveInt]
    """Distance between control points, voxels, z y x."""
    jitter_sigma: tuple[NonNegative, NonNegative, NonNegative]
    """Standard deviation of a control point's displacement, voxels, z y x. With 0 an axis stays straight."""
    rotation: Range = (0.0, 0.0)
    """[lowest, highest] angle in the y-x plane, radians, drawn uniformly."""
    slip: Probability = 0.0
    """Probability that a section is misaligned alone."""
    shift: Probability = 0.0
    """Probability that a section moves together with all sections after it."""
    max_misalign: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Largest offset of one slip or shift in y and in x, voxels. Offsets are integers, drawn uniformly."""
    subsample: PositiveInt = 1
    """The deformation is smooth on every n-th voxel and linear between. With 1 it is smooth everywhere."""

    @model_validator(mode="after")
    def _probabilities(self) -> Self:
        if self.slip + self.shift > 1:
            raise ValueError("slip and shift exclude each other: expected a sum of at most 1")
        return self

    @property
    def displaces(self) -> bool:
        """Whether the settings allow more than a rotation."""
        return any(self.jitter_sigma) or bool(self.slip or self.shift)

    def draw(self, box: Roi, centre: np.ndarray, random: np.random.Generator) -> WarpStep:
        """Draw a deformation of `box` (voxels) with a rotation about `centre`, as gunpowder's ElasticAugment does.

        A voxel is read from its rotated position, plus the jitter at the voxel, plus the shift of the voxel's section.
        """
        matrix = _rotation(random.uniform(*self.rotation))
        displacement = _jitter(self, box, random) if any(self.jitter_sigma) else None
        shifts = _misalignment(self, box.shape[0], random)
        section_shifts = SectionShifts(shifts, box.begin[0]) if shifts.any() else None
        return WarpStep(matrix, centre - matrix @ centre, displacement, section_shifts)


def _rotation(angle: float) -> np.ndarray:
    matrix = np.eye(3)
    matrix[1:, 1:] = [[cos(angle), sin(angle)], [-sin(angle), cos(angle)]]
    return matrix


def _jitter(settings: Elastic, box: Roi, random: np.random.Generator) -> ControlPointField:
    spacing = settings.control_point_spacing
    points = [max(1, round(size / step)) for size, step in zip(box.shape, spacing, strict=True)]
    vectors = np.zeros((3, *points), dtype=np.float32)
    for axis, sigma in enumerate(settings.jitter_sigma):
        if sigma:
            vectors[axis] = sigma * random.standard_normal(points, dtype=np.float32)
    (z, y, x), largest = _all_weights(tuple(points), tuple(box.shape), settings.subsample)
    return ControlPointField(vectors, (z, y, x), box, largest)


@lru_cache(maxsize=64)
def _all_weights(points: Shape, shape: Shape, subsample: int) -> tuple[list[np.ndarray], float]:
    """Return the weights of each axis, see `_weights`, and their largest sum."""
    weights = [_weights(n, size, subsample) for n, size in zip(points, shape, strict=True)]
    return weights, largest_sum(weights)


@lru_cache(maxsize=64)
def _weights(points: int, size: int, subsample: int) -> np.ndarray:
    """Return (size, points) float32: how much each control point along an axis moves each voxel."""
    # the first and last control points lie on the first and last voxels; `zoom` is linear in its input, so zooming the
    # unit vectors gives the weights
    coarse = max(1, size // subsample)
    smooth = zoom(np.eye(points), (coarse / points, 1), order=3, mode="mirror")
    return zoom(smooth, (size / coarse, 1), order=1, mode="mirror").astype(np.float32)


def _misalignment(settings: Elastic, sections: int, random: np.random.Generator) -> np.ndarray:
    """Return (sections, 3) float32 voxels. Shifts add up over sections; a slip replaces the sum in its section."""
    draw = random.random(sections)
    offsets = random.integers(-settings.max_misalign, settings.max_misalign, (sections, 3), endpoint=True)
    if not settings.slip and not settings.shift:  # the numbers are drawn: later ones depend on it
        return np.zeros((sections, 3), np.float32)
    offsets[:, 0] = 0
    is_slip = draw < settings.slip
    is_shift = ~is_slip & (draw < settings.slip + settings.shift)
    accumulated = np.cumsum(offsets * is_shift[:, None], axis=0)
    return np.where(is_slip[:, None], offsets, accumulated).astype(np.float32)
