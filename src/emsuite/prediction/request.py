"""A prediction's parts that are left at 0, and the compression of its arrays: what a user asks of it beside its tiles.

    mask       1 1 1 0 0 0 0 0        a tile without a voxel of 1 among those it writes is neither read nor computed;
    tiles     |--1--|--2--|--3--|     here 3. Of the others, voxels of 0 are written as 0.

    constant   all voxels that a tile reads are alike, as where a volume is padded: it is read, and not computed

Voxels that are not computed are 0. Where outputs are blended, such a tile adds 0 to the weighted mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.geometry import Roi
from emsuite.io.compression import ZSTD, Compression, read_compression
from emsuite.io.fingerprint import voxels_or_times
from emsuite.io.values import check_not_empty
from emsuite.io.volume import Volume, open_volume


@dataclass(frozen=True)
class Request:
    """By default every voxel is computed, and compressed as all arrays."""

    mask: Volume | None = None
    """(Z, Y, X), 0 for what stays 0; of any voxel size."""
    skip_constant: bool = False
    compression: Compression = ZSTD

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of a prediction that it decides."""
        voxels = {} if self.mask is None else {"mask_voxels": voxels_or_times(self.mask)}
        return voxels | {
            "mask": None if self.mask is None else str(self.mask.path),
            "constant": "skip" if self.skip_constant else "predict",
            "compression": str(self.compression),
        }

    @property
    def inputs(self) -> dict[str, Path]:
        """The files that it reads, for the manifest."""
        return {} if self.mask is None else {"mask": self.mask.path}

    def masked_in(self, raw: Volume, region: Roi) -> np.ndarray | None:
        """Return which voxels of `region`, voxels of raw, are masked in: bool (Z, Y, X), or None if all of them are."""
        if self.mask is None:
            return None
        masked_in = _nearest(self.mask, raw, region)
        return None if masked_in.all() else masked_in

    def is_skipped(self, voxels: np.ndarray) -> bool:
        """Return whether a tile that reads these voxels of raw is left at 0: NaN is never constant."""
        return self.skip_constant and is_constant(voxels)

    def reopened(self) -> "Request":
        """Return the same with a file of its own, for another process."""
        return self if self.mask is None else replace(self, mask=open_volume(self.mask.path))


EVERYTHING = Request()


def make_request(raw: Volume, mask: Path | None, constant: str, compression: str) -> Request:
    """Return what the command line asks for.

    Args:
        raw: the volume.
        mask: the path of a mask of raw, if there is one.
        constant: "skip" or "predict".
        compression: NAME or NAME:LEVEL, see `read_compression`.

    Raises:
        BadInput: the mask has another number of axes, or floats, or lies beside raw; or as `read_compression`.
    """
    opened = None if mask is None else _open_mask(mask, raw)
    return Request(opened, constant == "skip", read_compression(compression))


def is_constant(voxels: np.ndarray) -> bool:
    """Return whether all voxels are alike; stops at the first section that differs."""
    first = voxels[(0,) * voxels.ndim]
    return all(bool((section == first).all()) for section in voxels)


def _open_mask(path: Path, raw: Volume) -> Volume:
    mask = open_volume(path)
    check_not_empty(mask)
    if mask.channels is not None or mask.voxel_size.dims != 3:
        raise BadInput(f"{mask.path}: {len(mask.shape)} axes {mask.shape}, expected a mask with 3 (z, y, x)")
    if mask.dtype.kind not in "uib":
        raise BadInput(f"{mask.path}: {mask.dtype}, expected a mask of integers or booleans, 0 for what stays 0")
    if mask.roi.intersect(raw.roi).empty:
        raise BadInput(f"{mask.path}: covers {mask.roi} nm, nothing of raw, {raw.roi}")
    return mask


def _nearest(mask: Volume, raw: Volume, region: Roi) -> np.ndarray:
    """Return whether the mask is not 0 at the centre of each voxel of `region`; outside of the mask it is 0."""
    places = [_places(mask, raw, axis, begin, n) for axis, (begin, n) in enumerate(_ranges(region))]
    inside = [(along >= 0) & (along < n) for along, n in zip(places, mask.shape, strict=True)]
    masked_in = np.zeros(tuple(region.shape), bool)
    if not all(along.any() for along in inside):
        return masked_in
    within = [along[there] for along, there in zip(places, inside, strict=True)]
    values = mask[tuple(slice(int(along[0]), int(along[-1]) + 1) for along in within)] != 0
    for axis, along in enumerate(within):
        values = values.take(along - along[0], axis)
    masked_in[np.ix_(*inside)] = values
    return masked_in


def _ranges(region: Roi) -> Sequence[tuple[int, int]]:
    return [(int(begin), int(n)) for begin, n in zip(region.begin, region.shape, strict=True)]


def _places(mask: Volume, raw: Volume, axis: int, begin: int, n: int) -> np.ndarray:
    """Return, along an axis, the voxels of the mask that hold the centres of `n` voxels of raw from `begin` on."""
    centres_nm = float(raw.offset[axis] - mask.offset[axis]) + (begin + np.arange(n) + 0.5) * float(
        raw.voxel_size[axis]
    )
    return np.floor(centres_nm / float(mask.voxel_size[axis])).astype(np.int64)
