"""Checks of what arrays hold: any voxel at all, and values from 0 to 1. The ids of labels that are no neurons."""

from pathlib import Path

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.io.volume import Volume

SPECIAL_IDS = (2**64 - 1, 2**64 - 2, 2**64 - 3)
"""Ids of uint64 that are no neurons, and no ground truth: transparent, invalid and outside in BigCat
(saalfeldlab/bigcat, Label), with which CREMI's labels were drawn."""

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


def fitted(path: Path, voxels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return voxels of another type with the same values; raise BadInput, which names `path`, if one does not fit."""
    rounds = voxels.dtype.kind in "iu" and dtype.kind == "f"  # NumPy counts uint64 to float64 as safe
    if (np.can_cast(voxels.dtype, dtype, "safe") and not rounds) or voxels.size == 0:
        return voxels.astype(dtype, copy=False)
    low, high = voxels.min(), voxels.max()
    if dtype.kind == "f" and voxels.dtype.kind == "f":
        with np.errstate(over="ignore"):
            fits = np.array_equal(voxels.astype(dtype).astype(voxels.dtype), voxels, equal_nan=True)
    elif voxels.dtype.kind == "f" and not (np.isfinite(voxels).all() and (voxels == np.rint(voxels)).all()):
        fits = False
    else:
        least, most = _whole_numbers(dtype)
        fits = least <= int(low) and int(high) <= most
    if not fits:
        raise BadInput(f"{path}: voxels from {low} to {high} do not all fit {dtype}, expected a type that holds them")
    return voxels.astype(dtype)


def _whole_numbers(dtype: np.dtype) -> tuple[int, int]:
    """Return the range of whole numbers that a type holds without gaps."""
    if dtype.kind == "b":
        return 0, 1
    if dtype.kind == "f":
        return -(2 ** (np.finfo(dtype).nmant + 1)), 2 ** (np.finfo(dtype).nmant + 1)
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
