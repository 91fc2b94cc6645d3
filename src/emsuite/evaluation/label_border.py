"""The border between labels in a section, which ground truth leaves open: annotators draw it by a voxel or two apart.

    labels   1 1 1 1 2 2 2 2        distance to the border, voxels    2 1 0 . . 0 1 2        (0 on either side of it)

The CREMI challenge leaves out what is within a distance of the border (cremi/cremi_python, evaluation/border_mask.py):
a voxel is border if one of its 4 neighbours in the section has another label. The edge of the volume is no border.
"""

import math
from collections.abc import Sequence

import edt
import numpy as np

_ROUNDING = 1e-6  # distances are float32


def in_border(labels: np.ndarray, width_nm: float, voxel_size: Sequence[float]) -> np.ndarray:
    """Return which voxels are border, or at most `width_nm` from one in their section: bool (Z, Y, X).

    Args:
        labels: (Z, Y, X) integers; 0 is a label like any other here.
        width_nm: From voxel centre to voxel centre. Less than a voxel: the border alone; 0: nothing.
        voxel_size: In nm, z y x.
    """
    if not width_nm:
        return np.zeros(labels.shape, bool)
    inside = np.ones(labels.shape, bool)
    for axis in (1, 2):
        # views with the axis first; what is written into one of `inside` is written into it
        ids, kept = np.moveaxis(labels, axis, 0), np.moveaxis(inside, axis, 0)
        same = ids[:-1] == ids[1:]
        kept[:-1] &= same
        kept[1:] &= same
    size = tuple(float(n) for n in voxel_size)[1:]
    width = width_nm * (1 + _ROUNDING)
    return np.stack([edt.edt(section, anisotropy=size, black_border=False) <= width for section in inside])


def margin_of(width_nm: float, voxel_size: Sequence[float]) -> tuple[int, int, int]:
    """Return how many voxels around a region, z y x, decide on what of it is border."""
    if not width_nm:
        return 0, 0, 0
    y, x = (math.floor(width_nm / float(size) + _ROUNDING) + 1 for size in tuple(voxel_size)[1:])
    return 0, y, x
