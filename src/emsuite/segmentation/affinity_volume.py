"""Predicted affinities as the segmentation reads them: uint8, those to the next voxels first."""

from dataclasses import dataclass

import numpy as np
from funlib.geometry import Roi

from emsuite.common.errors import BadInput
from emsuite.io.volume import Volume
from emsuite.segmentation.region_graph import NEAR


@dataclass(frozen=True)
class AffinityVolume:
    """A volume of affinities (C, Z, Y, X): which channels to read, and to which voxels each of these points.

    The first three are NEAR: to the voxels before in z, y and x. Others follow in their own order.
    """

    volume: Volume
    channels: tuple[int, ...]
    offsets: tuple[tuple[int, ...], ...]

    def read(self, roi: Roi) -> np.ndarray:
        """(3, Z, Y, X) uint8, 0 to 255 stands for 0 to 1; raises BadInput for floats that are not in [0, 1]."""
        return self._read(roi, 3)

    def read_all(self, roi: Roi) -> np.ndarray:
        """(C, Z, Y, X), as `read`, a channel for each of the offsets."""
        return self._read(roi, len(self.channels))

    def _read(self, roi: Roi, number: int) -> np.ndarray:
        voxels = self.volume.read(roi)
        if self.channels[:number] != tuple(range(len(voxels))):
            voxels = voxels[list(self.channels[:number])]
        if voxels.dtype == np.uint8:
            return voxels
        if not ((voxels >= 0) & (voxels <= 1)).all():
            raise BadInput(
                f"{self.volume.path}: holds {voxels.min():.3g} to {voxels.max():.3g} (or NaN) in {roi}, "
                "expected affinities in [0, 1], or uint8"
            )
        return np.rint(voxels * 255.0).astype(np.uint8)


def affinity_volume(volume: Volume) -> AffinityVolume:
    """Check that `volume` holds affinities; raises BadInput.

    The attribute `neighborhood` (offsets in voxels, one per channel) says which channels are which; without it, the
    first three are taken, as in the paper.
    """
    if volume.channels is None or volume.voxel_size.dims != 3:
        raise BadInput(
            f"{volume.path}: {len(volume.shape)} axes {volume.shape}, expected affinities with 4 (c, z, y, x)"
        )
    if volume.dtype != np.uint8 and volume.dtype.kind != "f":
        raise BadInput(f"{volume.path}: {volume.dtype}, expected affinities as uint8, or as floats in [0, 1]")
    held = volume.attributes.get("neighborhood", NEAR)
    try:
        offsets = [tuple(int(n) for n in offset) for offset in held]
    except (TypeError, ValueError):
        raise BadInput(f"{volume.path}: 'neighborhood' holds {held!r}, expected offsets as {list(NEAR)}") from None
    told = "neighborhood" in volume.attributes
    if volume.channels < 3 or (told and len(offsets) != volume.channels):
        expected = (
            f"{len(offsets)}, one per offset of 'neighborhood'"
            if told
            else "affinities to the next voxel in z, y and x"
        )
        raise BadInput(f"{volume.path}: holds {volume.channels} channels, expected {expected}")
    if not set(NEAR) <= set(offsets):
        raise BadInput(f"{volume.path}: holds offsets {offsets}, expected the next voxel in z, y and x: {list(NEAR)}")
    first = [offsets.index(offset) for offset in NEAR]
    order = (*first, *(c for c in range(len(offsets)) if c not in first))
    return AffinityVolume(volume, order, tuple(offsets[c] for c in order))
