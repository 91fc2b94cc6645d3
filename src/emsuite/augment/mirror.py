"""Mirrored and transposed axes: exact permutations of the voxels, without interpolation."""

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Field

from emsuite.augment.augmentation import GeometricAugmentation
from emsuite.augment.warp import WarpStep
from emsuite.common.geometry import Roi


def _once(axes: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(axes)) < len(axes):
        raise ValueError("an axis is named twice, expected each at most once")
    return axes


Axes = Annotated[tuple[Annotated[int, Field(ge=0, le=2)], ...], AfterValidator(_once)]


class MirrorTranspose(GeometricAugmentation):
    """Flip each of the `mirror` axes with probability 1/2, then shuffle the `transpose` axes among themselves."""

    only_permutes_axes: ClassVar[bool] = True

    name: Literal["mirror_transpose"]
    mirror: Axes = (0, 1, 2)
    """Axes that may be flipped: 0 is z, 1 is y, 2 is x."""
    transpose: Axes = ()
    """Axes that may be exchanged. They must have the same voxel size. [1, 2] exchanges y and x half the time."""

    def draw(self, box: Roi, centre: np.ndarray, random: np.random.Generator) -> WarpStep:
        """Draw a permutation of the axes, some of them flipped, that keeps `centre`.

        `centre` (voxels) lies between two voxels along an axis of even length.
        """
        axes, signs, matrix = [0, 1, 2], [1, 1, 1], np.zeros((3, 3))
        for axis, exchanged in zip(self.transpose, random.permutation(self.transpose).tolist(), strict=True):
            axes[axis] = exchanged
        for axis, flips in zip(self.mirror, random.integers(0, 2, len(self.mirror)).tolist(), strict=True):
            signs[axis] = -1 if flips else 1
        matrix[[0, 1, 2], axes] = signs
        # an exchange of an odd axis with an even one would keep the centre only at half a voxel: round down
        return WarpStep(matrix, np.floor(centre - matrix @ centre))
