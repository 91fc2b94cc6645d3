"""A degraded copy of a volume: raw changed, labels and their mask as they are."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emsuite.blockwise.run import BlockWorkers
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Roi
from emsuite.data.derived.arrays import DerivedArray, carried_mask, write_derived
from emsuite.data.derived.degradations import Degradation
from emsuite.data.grey_values import TYPES, is_grey, range_of_type
from emsuite.data.raw import check_range
from emsuite.io.regions import format_roi, parse_roi
from emsuite.io.values import check_not_empty
from emsuite.io.volume import LABELS, RAW, Volume, holds_array, open_volume

_SLAB = 32
"""Sections that are read together for the mean."""


@dataclass(frozen=True)
class DegradeBlock:
    """Changes the voxels of a block, see `arrays.Change`."""

    look: Degradation
    mean: float
    """Of the whole volume, on the scale of -1 to 1."""

    @property
    def margin(self) -> tuple[int, int, int]:
        """Voxels around a block."""
        return self.look.margin

    def __call__(self, voxels: np.ndarray, read: Roi, write: Roi, volume: Volume) -> np.ndarray:
        """Return the voxels of `write`, uint8."""
        grey = signed_range(voxels, volume)
        changed = self.look.apply(grey, read.to_slices(), write.to_slices(), volume.shape, self.mean)
        return np.clip(np.rint((changed + 1) * 127.5), 0, 255).astype(np.uint8)


def degrade(
    source: Path,
    to: Path,
    look: Degradation,
    *,
    roi: str | None = None,
    with_labels: bool = True,
    workers: BlockWorkers = 1,
) -> bool:
    """Write a degraded copy of a volume, uint8; return False if it is there already.

    Args:
        source: The container, with `volumes/raw`.
        to: The container to write, zarr or HDF5.
        look: What changes.
        roi: The region to write, as `parse_roi` reads it; None: all. Voxels around it count as in the whole volume.
        with_labels: Whether labels and their mask, if the source has any, are copied.
        workers: Processes on this machine, or jobs of Slurm, for a zarr.

    Raises:
        BadInput: There is no raw, it has a wrong type or lies elsewhere than `roi`, a mask does not cover the labels,
            or `to` cannot be written.
    """
    raw = open_volume(source / RAW)
    check_not_empty(raw)
    if raw.channels is not None or raw.voxel_size.dims != 3 or not is_grey(raw.dtype):
        raise BadInput(f"{raw.path}: {raw.dtype} {raw.shape}, expected raw (z, y, x): {TYPES}")
    region = raw.roi if roi is None else parse_roi(roi, raw)
    mean = weighted_mean(raw, look) if look.needs_mean else 0.0
    arrays = {RAW: DerivedArray(raw.path, region, np.dtype(np.uint8), DegradeBlock(look, mean))}
    arrays |= _labelled(source, region) if with_labels else {}
    settings = {"look": look.model_dump(mode="json"), "roi": format_roi(region), "arrays": sorted(arrays), "mean": mean}
    return write_derived(to, arrays, settings, workers, look.seed)


def _labelled(source: Path, region: Roi) -> dict[str, DerivedArray]:
    """Return the labels in a region (nm), and their mask, as far as the source has them."""
    labels = open_volume(source / LABELS) if holds_array(source / LABELS) else None
    inside = labels.roi.intersect(region) if labels else None
    if labels is None or inside is None or inside.empty:
        return {}
    return {LABELS: DerivedArray(labels.path, inside, labels.dtype)} | carried_mask(labels.path, inside)


def signed_range(voxels: np.ndarray, volume: Volume) -> np.ndarray:
    """Return grey values of any type as float64 from -1 to 1, by the range of their type; floats lie in [0, 1]."""
    known = range_of_type(volume.dtype)
    if known is None:
        return check_range(volume, voxels).astype(np.float64) * 2 - 1
    return (voxels.astype(np.float64) - known.low) * (2 / (known.high - known.low)) - 1


def weighted_mean(raw: Volume, look: Degradation) -> float:
    """Return the mean of a volume from -1 to 1 by the weights of each axis, in a stream."""
    z, y, x = (look.weights(size, axis) for axis, size in enumerate(raw.shape))
    total = 0.0
    for begin in range(0, raw.shape[0], _SLAB):
        grey = signed_range(raw[begin : begin + _SLAB], raw)
        total += float(np.einsum("zyx,z,y,x", grey, z[begin : begin + _SLAB], y, x))
    return total / float(np.prod([float(n) for n in raw.shape]))
