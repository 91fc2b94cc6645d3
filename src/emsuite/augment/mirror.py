"""Mirrored and transposed axes: exact permutations of the voxels."""

from typing import Annotated, Literal

import numpy as np
from funlib.geometry import Roi
from pydantic import AfterValidator, Field

from emsuite.augment.warp import Step
from emsuite.common.settings import Settings


def _once(axes: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(axes)) < len(axes):
        raise ValueError("an axis is named twice, expected each at most once")
    return axes


Axes = Annotated[tuple[Annotated[int, Field(ge=0, le=2)], ...], AfterValidator(_once)]


class MirrorTranspose(Settings):
    """Each of the `mirror` axes is flipped with probability 1/2, then the `transpose` axes are shuffled among them."""

    name: Literal["mirror_transpose"]
    mirror: Axes = (0, 1, 2)
    """Axes that may be flipped: 0 is z, 1 is y, 2 is x."""
    transpose: Axes = ()
    """Axes that may take each other's place; they must have the same voxel size. [1, 2] swaps y and x half the time."""


def draw_mirror_transpose(settings: MirrorTranspose, box: Roi, centre: np.ndarray, random: np.random.Generator) -> Step:
    """A permutation of the axes, some of them flipped, about `centre` (voxels; half voxels on even axes)."""
    axes = np.arange(3)
    axes[list(settings.transpose)] = random.permutation(settings.transpose)
    signs = np.ones(3)
    signs[list(settings.mirror)] = 1 - 2 * random.integers(0, 2, len(settings.mirror))
    matrix = np.eye(3)[axes] * signs[:, None]
    # axes of an odd and an even length trade places only with half a voxel left over
    return Step(matrix, np.floor(centre - matrix @ centre))
