"""What a segmentation is compared with: dense labels, a mask of what counts, skeletons; read block by block.

segmentation  +-----------------+
labels            +------------------+       scored: the voxels that all of them cover,
mask            +--------------+             or the ROI that was asked for
ROI               [ . . . . . ]
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import numpy as np
from funlib.geometry import Coordinate, Roi

from emsuite.contingency import Contingency, contingency, merge
from emsuite.errors import BadInput
from emsuite.progress import progress
from emsuite.skeletons import Skeletons
from emsuite.volume import Volume

_BLOCK = 192  # voxels per axis that a thread holds at a time, in whole chunks of 64


@dataclass(frozen=True)
class Truth:
    """`labels` (Z, Y, X) integers, 0 where not annotated; `mask` (Z, Y, X), 0 where left out; `skeletons`, if any."""

    labels: Volume
    mask: Volume | None = None
    skeletons: Skeletons | None = None

    def read(self, roi: Roi) -> np.ndarray:
        """The labels in `roi` (nm), 0 where the mask leaves them out."""
        labels = self.labels.read(roi)
        return labels if self.mask is None else np.where(self.mask.read(roi) != 0, labels, labels.dtype.type(0))

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
        return roi

    def compare(self, segmentation: Volume, roi: Roi) -> tuple[Contingency, Skeletons | None, np.ndarray]:
        """The contingency table over `roi`, the skeletons that lie in it, and the segment (uint64) under each node.

        Nodes that the mask leaves out are left out, too. Raises BadInput if no node of the skeletons is left.
        """
        skeletons = self.skeletons
        voxels = np.empty((0, 3), np.int64) if skeletons is None else _voxels(skeletons.positions, self.labels)
        segments, counted = np.zeros(len(voxels), np.uint64), np.zeros(len(voxels), bool)

        def count(block: Roi) -> Contingency:
            found = segmentation.read(block)
            low, high = (
                np.array((end - self.labels.offset) / self.labels.voxel_size) for end in (block.begin, block.end)
            )
            here = np.flatnonzero(((voxels >= low) & (voxels < high)).all(axis=1))
            place = tuple((voxels[here] - low).T)
            segments[here] = found[place]
            counted[here] = True if self.mask is None else self.mask.read(block)[place] != 0
            return contingency(found, self.read(block))

        blocks = list(_blocks(roi, self.labels.voxel_size))
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
            table = merge(progress(threads.map(count, blocks), what="comparing", total=len(blocks), unit="block"))
        if skeletons is None:
            return table, None, segments
        if not counted.any():
            raise BadInput(f"{skeletons.source}: no node lies in {roi} nm, which is to be scored")
        return table, skeletons.subset(counted), segments[counted]


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


def _voxels(positions: np.ndarray, labels: Volume) -> np.ndarray:
    # the voxel of the labels' grid that each position (N, 3) in nm lies in
    return np.floor((positions - np.array(labels.offset)) / np.array(labels.voxel_size)).astype(np.int64)


def _blocks(roi: Roi, voxel_size: Coordinate) -> Iterator[Roi]:
    step = voxel_size * _BLOCK
    ranges = (range(begin, end, size) for begin, end, size in zip(roi.begin, roi.end, step, strict=True))
    for begin in product(*ranges):
        yield Roi(begin, step).intersect(roi)
