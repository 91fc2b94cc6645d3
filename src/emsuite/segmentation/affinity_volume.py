"""Affinities as every segmentation stage reads them: uint8, with the affinities to adjacent voxels first."""

from dataclasses import dataclass

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.geometry import Roi
from emsuite.io.values import check_not_empty, in_unit_range
from emsuite.io.volume import Volume
from emsuite.segmentation.region_graph import NEAR

_MOST_CHANNELS = 24  # without a neighborhood; networks predict 3 to 12, and volumes are larger


@dataclass(frozen=True)
class AffinityVolume:
    """A volume of affinities (C, Z, Y, X) with the order in which to read its channels.

    Attributes:
        volume: The stored affinities, uint8, or floats in [0, 1].
        channels: Indices of the stored channels, in the order in which `read_all` returns them. The first three are
            those of NEAR; the others follow in their stored order.
        offsets: For each of `channels`, the offset (z, y, x) in voxels to the voxel that the affinity refers to.
    """

    volume: Volume
    channels: tuple[int, ...]
    offsets: tuple[tuple[int, ...], ...]

    def read(self, roi: Roi) -> np.ndarray:
        """Return the affinities to adjacent voxels in `roi` (nm) as (3, Z, Y, X) uint8; 0 to 255 stands for 0 to 1.

        Raises:
            BadInput: If stored floats are not in [0, 1].
        """
        return self._read(roi, 3)

    def read_all(self, roi: Roi) -> np.ndarray:
        """Return all affinities in `roi` as (C, Z, Y, X) uint8, one channel per offset; otherwise like `read`."""
        return self._read(roi, len(self.channels))

    def _read(self, roi: Roi, number: int) -> np.ndarray:
        voxels = self.volume.read(roi)
        if self.channels[:number] != tuple(range(len(voxels))):
            voxels = voxels[list(self.channels[:number])]
        if voxels.dtype == np.uint8:
            return voxels
        values = in_unit_range(voxels)
        if values is None:
            raise BadInput(
                f"{self.volume.path}: holds {voxels.min():.6g} to {voxels.max():.6g} (or NaN) in {roi}, "
                "expected affinities in [0, 1], or uint8"
            )
        return np.rint(values * 255.0).astype(np.uint8)


def affinity_volume(volume: Volume) -> AffinityVolume:
    """Check that `volume` holds affinities, and find out what its channels mean.

    The array attribute `neighborhood` lists the offset of each channel in voxels. Without it, the first three channels
    are taken as NEAR, as in Sheridan et al. (2022).

    Raises:
        BadInput: If `volume` is no array of affinities, or has no affinities to the adjacent voxels.
    """
    if volume.channels is None or volume.voxel_size.dims != 3:
        raise BadInput(
            f"{volume.path}: {len(volume.shape)} axes {volume.shape}, expected affinities with 4 (c, z, y, x)"
        )
    check_not_empty(volume)
    if volume.dtype != np.uint8 and volume.dtype.kind != "f":
        raise BadInput(f"{volume.path}: {volume.dtype}, expected affinities as uint8, or as floats in [0, 1]")
    has_neighborhood = "neighborhood" in volume.attributes
    if not has_neighborhood and (volume.channels > _MOST_CHANNELS or 2 < volume.shape[-1] < min(volume.channels, 5)):
        raise BadInput(
            f"{volume.path}: shape {volume.shape} has {volume.channels} channels, expected the order (c, z, y, x) with "
            f"at most {_MOST_CHANNELS} channels, or 'neighborhood' with an offset for each"
        )
    neighborhood = volume.attributes.get("neighborhood", NEAR)
    try:
        offsets = [tuple(int(n) for n in offset) for offset in neighborhood]
    except (TypeError, ValueError):
        raise BadInput(
            f"{volume.path}: 'neighborhood' holds {neighborhood!r}, expected offsets as {list(NEAR)}"
        ) from None
    if volume.channels < 3 or (has_neighborhood and len(offsets) != volume.channels):
        expected = (
            f"{len(offsets)}, one per offset of 'neighborhood'"
            if has_neighborhood
            else "affinities to the next voxel in z, y and x"
        )
        raise BadInput(f"{volume.path}: holds {volume.channels} channels, expected {expected}")
    if not set(NEAR) <= set(offsets):
        raise BadInput(f"{volume.path}: holds offsets {offsets}, expected the next voxel in z, y and x: {list(NEAR)}")
    near = [offsets.index(offset) for offset in NEAR]
    order = (*near, *(c for c in range(len(offsets)) if c not in near))
    return AffinityVolume(volume, order, tuple(offsets[c] for c in order))
