"""What a segmentation is compared with: dense labels, a mask of what counts, skeletons.

segmentation  +-----------------+
labels            +------------------+       scored: the voxels that all of them cover,
mask            +--------------+             or the ROI that was asked for
ROI               [ . . . . . ]
"""

import logging
import math
from dataclasses import dataclass

import numpy as np
from funlib.geometry import Coordinate, Roi

from emsuite.common.errors import BadInput
from emsuite.io.skeletons import Skeletons
from emsuite.io.volume import Volume

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GroundTruth:
    """`labels` (Z, Y, X) integers, 0 where not annotated; `mask` (Z, Y, X), 0 where left out; `skeletons`, if any."""

    labels: Volume
    mask: Volume | None = None
    skeletons: Skeletons | None = None

    def read(self, roi: Roi) -> np.ndarray:
        """The labels in `roi` (nm), 0 where the mask leaves them out."""
        labels = self.labels.read(roi)
        if self.mask is not None:
            labels[~self.counts(roi)] = 0
        return labels

    def counts(self, roi: Roi) -> np.ndarray:
        """Whether the mask counts each voxel in `roi` (nm)."""
        if self.mask is None:
            return np.ones(roi.shape / self.labels.voxel_size, bool)
        return self.mask.read(roi) != 0

    def common_roi(self, segmentation: Volume, asked: Roi | None = None) -> Roi:
        """What the segmentation, the labels and the mask all cover, in nm; or `asked`, which all must cover.

        Raises BadInput where they do not fit each other: number of axes, integers, voxel size and grid, overlap.
        """
        arrays = [segmentation, self.labels, *([self.mask] if self.mask else [])]
        for array in arrays:
            _check(array, self.labels)
        if asked is not None:
            for array in arrays:
                if not array.roi.contains(asked):
                    raise BadInput(f"{array.path}: covers {array.roi} nm, but {asked} is to be scored")
            return asked
        roi = arrays[0].roi
        for array in arrays[1:]:
            if not roi.intersects(array.roi):
                raise BadInput(
                    f"{array.path}: covers {array.roi} nm, which does not overlap {roi} of {segmentation.path}"
                )
            roi = roi.intersect(array.roi)
        if roi != self.labels.roi:
            share = math.prod(roi.shape) / math.prod(self.labels.roi.shape)
            _log.warning(f"{self.labels.path}: {share:.0%} of it is scored, what all arrays cover: {roi} nm")
        return roi


def _check(array: Volume, labels: Volume) -> None:
    if array.channels is not None or array.voxel_size.dims != 3:
        raise BadInput(f"{array.path}: shape {array.shape}, expected three axes z, y, x")
    if not (np.issubdtype(array.dtype, np.integer) or (array.dtype == bool and array is not labels)):
        raise BadInput(f"{array.path}: holds {array.dtype}, expected integer ids")
    if array.voxel_size != labels.voxel_size:
        raise BadInput(
            f"{array.path}: voxel size {tuple(array.voxel_size)} nm, but {tuple(labels.voxel_size)} in {labels.path}"
        )
    if (array.offset - labels.offset) % labels.voxel_size != Coordinate(0, 0, 0):
        raise BadInput(
            f"{array.path}: offset {tuple(array.offset)} nm is not a whole number of voxels from "
            f"{tuple(labels.offset)} of {labels.path}"
        )
