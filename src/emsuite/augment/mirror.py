"""Mirrored and transposed axes: exact permutations of the voxels, without interpolation."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from emsuite.augment.augmentation import GeometricAugmentation
from emsuite.augment.warp import WarpStep
from emsuite.common.geometry import Roi


def _once(axes: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(axes)) < len(axes):
        raise ValueError("an axis is named twice, expected each at most once")
    return axes


Axes = Annotated[tuple[Annotated[int, Field(ge=0, le=2)], ...], AfterValidator(_once)]


_TURNS_AND_FLIPS = (
    (False, (1, 1)),
    (False, (-1, 1)),
    (False, (1, -1)),
    (False, (-1, -1)),  # a turn by 180 degrees
    (True, (-1, 1)),  # turns by 90 and by 270 degrees: the axes are exchanged, one of them is flipped
    (True, (1, -1)),
)
"""Whether two axes are exchanged, and the sign of each."""


class MirrorTranspose(GeometricAugmentation):
    """Flip each of the `mirror` axes with probability 1/2, then shuffle the `transpose` axes among themselves.

    Without `diagonals`, one of the six orientations of microDL: none, two flips, and turns by 90, 180, 270 degrees.
    """

    only_permutes_axes: ClassVar[bool] = True

    name: Literal["mirror_transpose"]
    mirror: Axes = (0, 1, 2)
    """Axes that may be flipped: 0 is z, 1 is y, 2 is x."""
    transpose: Axes = ()
    """Axes that may be exchanged. They must have the same voxel size. [1, 2] exchanges y and x half the time."""

    diagonals: bool = True
    """Whether a square may be mirrored at its diagonals: two of the eight orientations of two axes. With false, the
    six others come equally often; `mirror` and `transpose` name the same two axes."""

    @model_validator(mode="after")
    def _two_axes(self) -> "MirrorTranspose":
        if not self.diagonals and not (len(self.mirror) == 2 and set(self.mirror) == set(self.transpose)):
            raise ValueError(
                f"diagonals: false is for two axes, but mirror names {list(self.mirror)} and transpose "
                f"{list(self.transpose)}; expected the same two, as [1, 2]"
            )
        return self

    def draw(self, box: Roi, centre: np.ndarray, random: np.random.Generator) -> WarpStep:
        """Draw a permutation of the axes, some of them flipped, that keeps `centre`.

        `centre` (voxels) lies between two voxels along an axis of even length.
        """
        axes, signs, matrix = [0, 1, 2], [1, 1, 1], np.zeros((3, 3))
        order, flips = self._drawn(random)
        for axis, exchanged in zip(self.transpose, order, strict=True):
            axes[axis] = exchanged
        for axis, sign in zip(self.mirror, flips, strict=True):
            signs[axis] = sign
        matrix[[0, 1, 2], axes] = signs
        # an exchange of an odd axis with an even one would keep the centre only at half a voxel: round down
        return WarpStep(matrix, np.floor(centre - matrix @ centre))

    def _drawn(self, random: np.random.Generator) -> tuple[Sequence[int], Sequence[int]]:
        """Return the order of the `transpose` axes, and the sign of each of the `mirror` axes."""
        if self.diagonals:
            order, flips = random.permutation(self.transpose), random.integers(0, 2, len(self.mirror))
            return order.tolist(), (1 - 2 * flips).tolist()
        is_exchanged, signs = _TURNS_AND_FLIPS[random.integers(len(_TURNS_AND_FLIPS))]
        return (self.transpose[::-1] if is_exchanged else self.transpose), signs
