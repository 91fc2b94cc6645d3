"""Elastic deformation: jittered control points, rotation in y-x, slipped and shifted sections."""

from functools import lru_cache
from math import cos, sin
from typing import Literal, Self

import numpy as np
from funlib.geometry import Roi
from pydantic import NonNegativeInt, PositiveInt, model_validator
from scipy.ndimage import zoom

from emsuite.augment.warp import ControlPointField, SectionShifts, Step
from emsuite.common.settings import NonNegative, Probability, Range, Settings


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


def draw_elastic(settings: Elastic, box: Roi, centre: np.ndarray, random: np.random.Generator) -> Step:
    """A deformation of `box` (voxels) turned about `centre`, as gunpowder's ElasticAugment draws one.

    The place in the volume is the voxel, turned, plus the jitter there, plus the misalignment of its section.
    """
    matrix = _rotation(random.uniform(*settings.rotation))
    lattice = _jitter(settings, box, random) if any(settings.jitter_sigma) else None
    vectors = _misalignment(settings, box.shape[0], random)
    slides = SectionShifts(vectors, box.begin[0]) if vectors.any() else None
    return Step(matrix, centre - matrix @ centre, lattice, slides)


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
    z, y, x = (_weights(n, size, settings.subsample) for n, size in zip(points, box.shape, strict=True))
    return ControlPointField(vectors, (z, y, x), box)


@lru_cache(maxsize=64)
def _weights(points: int, size: int, subsample: int) -> np.ndarray:
    # the first and last control points lie on the first and last voxels; `zoom` is linear in what it zooms, so that its
    # answer to the unit vectors holds the weights
    coarse = max(1, size // subsample)
    smooth = zoom(np.eye(points), (coarse / points, 1), order=3, mode="mirror")
    return zoom(smooth, (size / coarse, 1), order=1, mode="mirror").astype(np.float32)


def _misalignment(settings: Elastic, sections: int, random: np.random.Generator) -> np.ndarray:
    """(sections, 3) float32 voxels. Shifts add up from section to section; a slipped one has its own offset alone."""
    kind = random.random(sections)
    offsets = random.integers(-settings.max_misalign, settings.max_misalign, (sections, 3), endpoint=True)
    offsets[:, 0] = 0
    slips = kind < settings.slip
    shifts = ~slips & (kind < settings.slip + settings.shift)
    moved = np.cumsum(offsets * shifts[:, None], axis=0)
    return np.where(slips[:, None], offsets, moved).astype(np.float32)
