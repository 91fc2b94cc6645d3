"""Checks of raw before a network reads it: three axes, uint8 or floats in [0, 1], the voxel size of the network."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate
from emsuite.io.values import check_not_empty, in_unit_range
from emsuite.io.volume import Volume, is_url, open_volume


def open_raw(path: Path, voxel_size: Sequence[float]) -> Volume:
    """Open raw for a network of this voxel size (nm); raise BadInput if the network cannot read it."""
    raw = open_volume(path if is_url(path) else os.path.realpath(path))
    check_raw(raw, voxel_size)
    return raw


def check_raw(raw: Volume, voxel_size: Sequence[float]) -> None:
    """Raise BadInput if a network of this voxel size (nm) cannot read `raw`."""
    check_not_empty(raw)
    if raw.channels is not None or raw.voxel_size.dims != 3:
        raise BadInput(f"{raw.path}: {len(raw.shape)} axes {raw.shape}, expected raw with 3 (z, y, x)")
    if raw.dtype != np.uint8 and raw.dtype.kind != "f":
        raise BadInput(f"{raw.path}: {raw.dtype}, expected uint8, or floats in [0, 1]")
    if raw.voxel_size != Coordinate(voxel_size):
        raise BadInput(f"{raw.path}: voxel size {raw.voxel_size} nm, expected the network's {voxel_size}")


def check_range(raw: Volume, voxels: np.ndarray) -> np.ndarray:
    """Return `voxels` of `raw`, floats clipped to [0, 1] if rounding left it; raise BadInput if they lie outside."""
    checked = in_unit_range(voxels) if voxels.dtype.kind == "f" else voxels
    if checked is None:
        values = "NaN" if np.isnan(voxels).any() else f"floats from {voxels.min():.6g} to {voxels.max():.6g}"
        raise BadInput(f"{raw.path}: holds {values}, expected floats in [0, 1], or uint8")
    return checked
