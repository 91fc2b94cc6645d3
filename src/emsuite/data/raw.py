"""Checks of raw before a network reads it: three axes, a type of grey values, the voxel size of the network."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate
from emsuite.common.outputs import check_whole
from emsuite.data.grey_values import TYPES, GreyRange, in_grey_range, is_grey, warn_of_range
from emsuite.data.normalization import GreyScale, Normalization
from emsuite.io.values import check_not_empty, in_unit_range
from emsuite.io.volume import Volume, is_url, open_volume

SAYS_RANGE = " (normalization.grey_range of network.yaml says which values become 0 and 1)"


def open_raw(
    path: Path,
    voxel_size: Sequence[float],
    normalization: Normalization | None = None,
    measured: GreyRange | None = None,
) -> Volume:
    """Open raw for a network of this voxel size (nm), in the range of grey values that its normalization says.

    Args:
        path: of the array.
        voxel_size: of the network.
        normalization: of the network; None: its default.
        measured: the range of the training volumes, see `in_grey_range`.

    Raises:
        BadInput: the network cannot read it, or it has lost files since the suite wrote it.
    """
    check_whole(path, is_edited=True)
    raw = open_volume(path if is_url(path) else os.path.realpath(path))
    check_raw(raw, voxel_size)
    chosen = in_grey_range(raw, normalization or Normalization(), measured)
    warn_of_range(raw, chosen)
    return chosen


def check_raw(raw: Volume, voxel_size: Sequence[float]) -> None:
    """Raise BadInput if a network of this voxel size (nm) cannot read `raw`."""
    check_not_empty(raw)
    if raw.channels is not None or raw.voxel_size.dims != 3:
        raise BadInput(f"{raw.path}: {len(raw.shape)} axes {raw.shape}, expected raw with 3 (z, y, x)")
    if not is_grey(raw.dtype):
        raise BadInput(f"{raw.path}: {raw.dtype}, expected {TYPES}")
    if raw.voxel_size != Coordinate(voxel_size):
        raise BadInput(f"{raw.path}: voxel size {raw.voxel_size} nm, expected the network's {voxel_size}")


def check_range(raw: Volume, voxels: np.ndarray) -> np.ndarray:
    """Return `voxels` of `raw`, floats clipped to [0, 1] if rounding left it; raise BadInput if they lie outside."""
    if voxels.dtype == np.uint8:
        return voxels
    if voxels.dtype.kind != "f":
        raise BadInput(f"{raw.path}: read as {voxels.dtype}, expected uint8 or floats; `in_grey_range` yields them")
    checked = in_unit_range(voxels)
    if checked is None:
        has_nan = bool(np.isnan(voxels).any())
        values = "NaN" if has_nan else f"floats from {voxels.min():.6g} to {voxels.max():.6g}"
        raise BadInput(
            f"{raw.path}: holds {values}, expected floats in [0, 1]{'' if has_nan else SAYS_RANGE}, or uint8"
        )
    return checked


@dataclass(frozen=True)
class Reads:
    """How grey values become the input of a network, and what it makes becomes grey values."""

    voxel_size: Sequence[float]
    """nm, z y x."""
    normalization: Normalization
    grey_range: GreyRange | None = None
    """The range that was measured on the training volumes, if any."""
    grey_scale: GreyScale | None = None
    """The scale that was measured on the training volumes, if any."""
    output_scale: GreyScale | None = None
    """That of the images that the network makes; None: that of its input."""

    @property
    def scales(self) -> tuple[GreyScale | None, GreyScale | None]:
        """The scales of input and output."""
        return self.grey_scale, self.output_scale

    def open(self, path: Path) -> Volume:
        """See `open_raw`."""
        return open_raw(path, self.voxel_size, self.normalization, self.grey_range)

    def checked(self, raw: Volume) -> Volume:
        """Return raw in the network's range of grey values; raise BadInput if the network cannot read it."""
        check_raw(raw, self.voxel_size)
        return in_grey_range(raw, self.normalization, self.grey_range)
