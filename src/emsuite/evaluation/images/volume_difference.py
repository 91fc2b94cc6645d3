"""How far grey values of volumes lie from those of another, over the region that all cover: RMSE, mean error, range.

The score of a known degradation: the difference to the original before and after a transfer undoes it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.files import write_json
from emsuite.common.geometry import Coordinate, Roi
from emsuite.common.outputs import check_whole, output
from emsuite.data.grey_values import TYPES, is_grey, range_of_type
from emsuite.data.raw import check_range
from emsuite.io.regions import format_roi, parse_roi
from emsuite.io.volume import Volume, fingerprint, open_volume

_SECTIONS = 32
"""Read together."""


@dataclass(frozen=True)
class Difference:
    """The difference of a volume from a target; 1 is the whole range of grey values of the type of each."""

    volume: str
    rmse: float
    mae: float
    mean_difference: float
    """Volume minus target."""
    voxels: int

    def as_dict(self) -> dict[str, Any]:
        """Return it for a file."""
        return asdict(self)


def differences(target: Path, volumes: Sequence[Path], roi: str | None = None) -> tuple[list[Difference], str]:
    """Return the difference of each volume from the target, over one region for all.

    Args:
        target: (Z, Y, X), or one channel; the original.
        volumes: of the same voxels, anywhere.
        roi: the region, as `parse_roi` reads it in the target; None: all that every volume covers.

    Returns:
        the differences, and the region as a text, nm.

    Raises:
        BadInput: voxels differ in size or place, a volume does not cover the region, or an output has lost files.
    """
    for path in (target, *volumes):
        check_whole(path)
    original = _opened(target, None)
    others = [_opened(path, original) for path in volumes]
    region = original.roi if roi is None else parse_roi(roi, original)
    for other in others if roi is None else ():
        region = region.intersect(other.roi)
        if region.empty:
            raise BadInput(f"{other.path}: covers {other.roi} nm, expected it to overlap the others")
    return [_difference(original, other, region) for other in others], format_roi(region)


def write_differences(
    out: Path, target: Path, volumes: Sequence[Path], roi: str | None = None
) -> tuple[list[Difference], str]:
    """Return `differences`, and write them to the JSON file `out`, with its provenance beside it.

    Raises:
        BadInput: as `differences`, or `out` is there and no result of this suite.
    """
    inputs = {"target": target} | {f"volume_{number}": path for number, path in enumerate(volumes, start=1)}
    with output(out, {"roi": roi}, inputs=inputs, fingerprint=fingerprint) as made:
        found, region = differences(target, volumes, roi)
        content = {"target": str(target), "roi": region, "differences": [one.as_dict() for one in found]}
        write_json(made.file, content)
        made.become_file()
    return found, region


def _opened(path: Path, original: Volume | None) -> Volume:
    volume = open_volume(path)
    if volume.voxel_size.dims != 3 or volume.channels not in (None, 1) or not is_grey(volume.dtype):
        raise BadInput(f"{path}: {volume.dtype} {volume.shape}, expected images (z, y, x): {TYPES}")
    if original is not None and volume.voxel_size != original.voxel_size:
        raise BadInput(f"{path}: voxels of {volume.voxel_size} nm, expected the target's, {original.voxel_size} nm")
    if original is not None and (volume.offset - original.offset) % original.voxel_size != Coordinate(0, 0, 0):
        raise BadInput(f"{path}: begins at {volume.offset} nm, not whole voxels from the target's {original.offset}")
    return volume


def _difference(target: Volume, volume: Volume, region: Roi) -> Difference:
    volume.check(region)
    squares = absolute = total = 0.0
    voxels = 0
    for slab in _slabs(region, target.voxel_size):
        apart = _unit(volume, slab) - _unit(target, slab)
        squares += float(np.square(apart).sum())
        absolute += float(np.abs(apart).sum())
        total += float(apart.sum())
        voxels += apart.size
    rmse = float(np.sqrt(squares / voxels))
    return Difference(str(volume.path), rmse, absolute / voxels, total / voxels, voxels)


def _slabs(region: Roi, voxel_size: Coordinate) -> Iterator[Roi]:
    depth = voxel_size[0] * _SECTIONS
    begin = region.begin[0]
    while begin < region.end[0]:
        end = min(begin + depth, region.end[0])
        yield Roi((begin, *region.begin[1:]), (end - begin, *region.shape[1:]))
        begin = end


def _unit(volume: Volume, region: Roi) -> np.ndarray:
    """Return grey values as float64 from 0 to 1, by the range of their type."""
    voxels = volume.read(region).reshape([-1, *(region.shape / volume.voxel_size)[1:]])
    known = range_of_type(volume.dtype)
    if known is None:
        return check_range(volume, voxels).astype(np.float64)
    return (voxels.astype(np.float64) - known.low) / (known.high - known.low)
