"""The predictions that instances are decoded from: arrays of one grid, uint8."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.geometry import Roi
from emsuite.io.values import check_not_empty
from emsuite.io.volume import Volume, open_volume
from emsuite.segmentation.instances.decode import DISTANCE, FOREGROUND
from emsuite.segmentation.instances.settings import Decoding


@dataclass(frozen=True)
class HeadsVolume:
    """The opened predictions, by `FOREGROUND`, `CONTOUR` and `DISTANCE`; they cover the same voxels."""

    volumes: Mapping[str, Volume]

    @property
    def volume(self) -> Volume:
        """The foreground, whose grid is that of all."""
        return self.volumes[FOREGROUND]

    def read(self, roi: Roi) -> dict[str, np.ndarray]:
        """Return the predictions in `roi` (nm), each (Z, Y, X) uint8."""
        voxels = {name: volume.read(roi) for name, volume in self.volumes.items()}
        return {name: values[0] if values.ndim == 4 else values for name, values in voxels.items()}


def open_heads(paths: Mapping[str, Path], decoding: Decoding | None = None) -> HeadsVolume:
    """Open predictions.

    Args:
        paths: The arrays by head.
        decoding: If it needs no distance, none is read.

    Raises:
        BadInput: An array is no prediction of one head as uint8, differs from the others in its grid, or a distance is
            needed and is not there.
    """
    if decoding and decoding.needs_distance and DISTANCE not in paths:
        raise BadInput("no distance given, which these thresholds need; expected that of the network, or decoding bc")
    read = {name: path for name, path in paths.items() if name != DISTANCE or not decoding or decoding.needs_distance}
    volumes = {name: open_volume(path) for name, path in read.items()}
    reference = volumes[FOREGROUND]
    for name, volume in volumes.items():
        _check(name, volume, reference)
    return HeadsVolume(volumes)


def _check(name: str, volume: Volume, reference: Volume) -> None:
    check_not_empty(volume)
    if volume.voxel_size.dims != 3 or volume.channels not in (None, 1):
        raise BadInput(f"{volume.path}: shape {volume.shape}, expected the {name} of one head (z, y, x)")
    if volume.dtype != np.uint8:
        raise BadInput(f"{volume.path}: {volume.dtype}, expected the {name} as uint8, 0 to 255 as networks predict it")
    if volume.voxel_size != reference.voxel_size:
        raise BadInput(
            f"{volume.path}: voxel size {volume.voxel_size} nm, expected {reference.voxel_size} nm as {reference.path}"
        )
    if volume.roi != reference.roi:
        raise BadInput(f"{volume.path}: covers {volume.roi} nm, expected {reference.roi} nm as {reference.path}")
