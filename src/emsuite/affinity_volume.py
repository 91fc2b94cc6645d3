"""Predicted affinities as the segmentation reads them: uint8, the three channels to the next voxels alone."""

from dataclasses import dataclass

import numpy as np
from funlib.geometry import Roi

from emsuite.errors import BadInput
from emsuite.volume import Volume

_NEAR = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]


@dataclass(frozen=True)
class AffinityVolume:
    """A volume of affinities (C, Z, Y, X), and which of its channels point to the voxels before in z, y and x."""

    volume: Volume
    channels: tuple[int, int, int]

    def read(self, roi: Roi) -> np.ndarray:
        """(3, Z, Y, X) uint8, 0 to 255 stands for 0 to 1; raises BadInput for floats that are not in [0, 1]."""
        voxels = self.volume.read(roi)
        if self.channels != (0, 1, 2) or len(voxels) > 3:
            voxels = voxels[list(self.channels)]
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
    offsets = [list(offset) for offset in volume.array.attrs.get("neighborhood", _NEAR)]
    missing = [offset for offset in _NEAR if offset not in offsets]
    if volume.channels < 3 or missing:
        held = f"offsets {offsets}" if missing else f"{volume.channels} channels"
        raise BadInput(f"{volume.path}: holds {held}, expected affinities to the next voxel in z, y and x: {_NEAR}")
    z, y, x = (offsets.index(offset) for offset in _NEAR)
    return AffinityVolume(volume, (z, y, x))
