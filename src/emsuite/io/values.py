"""Checks of what arrays hold: any voxel at all, and values from 0 to 1."""

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.io.volume import Volume

ROUNDING = 4 * float(np.finfo(np.float32).eps)
"""How far a value of [0, 1] may lie outside after a few operations in float32."""


def check_not_empty(volume: Volume) -> None:
    """Raise BadInput if an axis of the volume has no voxel."""
    if 0 in volume.shape:
        raise BadInput(f"{volume.path}: shape {volume.shape} holds no voxel, expected at least 1 along each axis")


def in_unit_range(voxels: np.ndarray) -> np.ndarray | None:
    """Return values in [0, 1]: `voxels`, clipped if they leave it by `ROUNDING` at most; None if they leave it farther.

    Args:
        voxels: Any shape; NaN is outside.
    """
    if not voxels.size:
        return voxels
    low, high = float(voxels.min()), float(voxels.max())
    if 0 <= low <= high <= 1:
        return voxels
    return voxels.clip(0, 1) if -ROUNDING <= low <= high <= 1 + ROUNDING else None
