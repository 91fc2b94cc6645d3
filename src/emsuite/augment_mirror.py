"""Mirrored and transposed axes: exact permutations of the voxels."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from emsuite.settings import Settings


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
