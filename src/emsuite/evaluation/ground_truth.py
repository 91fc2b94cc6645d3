"""The ground truth of a segmentation: dense labels, or skeletons, or both; and a mask of the voxels to score.

segmentation  +-----------------+
labels            +------------------+       scored: the voxels that all arrays cover,
mask            +--------------+             or the ROI that the user names
ROI               [ . . . . . ]

Annotators draw the border between labels in a section by a voxel or two apart, so that ground truth may leave it open:

labels   1 1 1 1 2 2 2 2        distance to the border, voxels    2 1 0 . . 0 1 2        (0 on either side of it)

The CREMI challenge leaves out what is within a distance of the border (cremi/cremi_python, evaluation/border_mask.py):
a voxel is border if one of its 4 neighbours in the section has another label. The edge of the volume is no border.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import edt
import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate, Roi
from emsuite.io.skeletons import Skeletons
from emsuite.io.values import SPECIAL_IDS, check_not_empty
from emsuite.io.volume import Volume

_log = logging.getLogger(__name__)
_ROUNDING = 1e-6  # distances are float32


@dataclass(frozen=True)
class GroundTruth:
    """`labels` (Z, Y, X) integers, 0 where not annotated; `mask` (Z, Y, X), 0 where voxels are left out.

    Without labels, the nodes of the skeletons are scored instead of voxels. `border` is the width (nm) of what is left
    out on either side of the border between labels, see `in_border`.
    """

    labels: Volume | None
    mask: Volume | None = None
    skeletons: Skeletons | None = None
    border: float = 0

    def read(self, roi: Roi) -> np.ndarray:
        """Return the labels in `roi` (nm), 0 where they are no ground truth. There must be labels.

        That is where the mask leaves them out, at their border, and where ids are those of bigcat that stand for no
        neuron, the three largest of uint64.
        """
        assert self.labels is not None, "skeletons alone hold no labels to read"
        labels = self._without_border(self.labels, roi)
        if labels.dtype == np.uint64:
            labels[labels >= np.uint64(min(SPECIAL_IDS))] = 0
        if self.mask is not None:
            labels[~self.is_scored(roi)] = 0
        return labels

    def _without_border(self, labels: Volume, roi: Roi) -> np.ndarray:
        """Return the labels in `roi`, 0 at their border: as in the whole volume, whatever the ROI."""
        if not self.border:
            return labels.read(roi)
        size = labels.voxel_size
        margin = Coordinate(margin_of(self.border, size)) * size
        around = roi.grow(margin, margin).intersect(labels.roi)
        voxels = labels.read(around)
        voxels[in_border(voxels, self.border, size)] = 0
        inner = Roi((roi.offset - around.offset) / size, roi.shape / size)
        return np.ascontiguousarray(voxels[inner.to_slices()])

    def is_scored(self, roi: Roi) -> np.ndarray:
        """Return a bool for each voxel in `roi` (nm): whether the mask keeps it."""
        if self.mask is None:
            assert self.labels is not None, "neither labels nor a mask say how large a voxel is"
            return np.ones(roi.shape / self.labels.voxel_size, bool)
        return self.mask.read(roi) != 0

    def common_roi(self, segmentation: Volume, requested: Roi | None = None) -> Roi:
        """Return the ROI to score, in nm.

        Args:
            segmentation: The segmentation to score.
            requested: The ROI that the user named; the segmentation, the labels and the mask must cover it.

        Returns:
            `requested`, or the ROI that the segmentation, the labels (if there are any) and the mask all cover.

        Raises:
            BadInput: The arrays have other axes than z, y, x, hold no integers, differ in voxel size, lie on different
                voxel grids, do not overlap, or do not cover `requested`.
        """
        arrays = [segmentation, *(array for array in (self.labels, self.mask) if array is not None)]
        reference = self.labels or segmentation
        for array in arrays:
            _check(array, reference)
        if requested is not None:
            for array in arrays:
                if not array.roi.contains(requested):
                    raise BadInput(f"{array.path}: covers {array.roi} nm, but {requested} is to be scored")
            return requested
        roi = arrays[0].roi
        for array in arrays[1:]:
            if not roi.intersects(array.roi):
                raise BadInput(
                    f"{array.path}: covers {array.roi} nm, which does not overlap {roi} of {segmentation.path}"
                )
            roi = roi.intersect(array.roi)
        if self.labels is not None and roi != self.labels.roi:
            share = float(math.prod(roi.shape) / math.prod(self.labels.roi.shape))
            _log.warning(f"{self.labels.path}: {share:.0%} of it is scored, the part that all arrays cover: {roi} nm")
        return roi


def _check(array: Volume, reference: Volume) -> None:
    check_not_empty(array)
    if array.channels is not None or array.voxel_size.dims != 3:
        raise BadInput(f"{array.path}: shape {array.shape}, expected three axes z, y, x")
    if not (np.issubdtype(array.dtype, np.integer) or (array.dtype == bool and array is not reference)):
        raise BadInput(f"{array.path}: holds {array.dtype}, expected integer ids")
    if array.voxel_size != reference.voxel_size:
        raise BadInput(
            f"{array.path}: voxel size {array.voxel_size} nm, but {reference.voxel_size} in {reference.path}"
        )
    if (array.offset - reference.offset) % reference.voxel_size != Coordinate(0, 0, 0):
        raise BadInput(
            f"{array.path}: offset {array.offset} nm is not a whole number of voxels from "
            f"{reference.offset} of {reference.path}"
        )


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
