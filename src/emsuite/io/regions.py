"""Regions of volumes as users write them: `z0:z1,y0:y1,x0:x1` in nm."""

from collections.abc import Iterable
from pathlib import Path

from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate, Roi, exact, json_numbers, on_grid
from emsuite.io.volume import LABELS, RAW, Volume, holds_array, open_volume


def check_is_zarr(out: Path) -> None:
    """Raise BadInput if an output that is written in blocks is no zarr by its name."""
    if out.suffix != ".zarr":
        raise BadInput(f"{out}: is written in blocks, as zarr; expected a name that ends in .zarr")


def has_files(volume: Volume, roi: Roi) -> bool:
    """Return whether every file that holds voxels of a region (nm) exists and is not empty; True of files unknown.

    A file may be missing because its voxels are 0. In a copy that was taken while a run wrote, others are missing.
    """
    look = getattr(volume.array, "has_files", None)
    begin = (roi.offset - volume.offset) / volume.voxel_size
    return look is None or bool(look((..., *Roi(begin, roi.shape / volume.voxel_size).to_slices())))


def parse_roi(text: str, within: Volume) -> Roi:
    """Return the region that a text such as `0:1040,:,520:` describes.

    Args:
        text: Begin and end of each axis in nm, as `z0:z1,y0:y1,x0:x1`. An end that is left out is that of the volume,
            so that `1040:1280,:,:` cuts in z alone.
        within: The volume that the region must be inside of.

    Raises:
        BadInput: The text is no region, or as `Volume.check`.
    """
    parts = text.split(",")
    if len(parts) != within.voxel_size.dims:
        raise BadInput(
            f"ROI {text[:80]!r}: {len(parts)} ranges, expected {within.voxel_size.dims} as z0:z1,y0:y1,x0:x1 in nm"
        )
    begin, end = [], []  # nm
    for part, low, high in zip(parts, within.roi.begin, within.roi.end, strict=True):
        low_text, colon, high_text = part.strip().partition(":")
        try:
            begin.append(exact(float(low_text)) if low_text else low)
            end.append(exact(float(high_text)) if high_text else high)
        except (ValueError, OverflowError):
            raise BadInput(f"ROI {text[:80]!r}: {part[:80]!r} is no range of nm, expected as 0:1040 or :") from None
        if not colon or begin[-1] >= end[-1]:
            raise BadInput(f"ROI {text[:80]!r}: {part[:80]!r} is empty or no range, expected as 0:1040 or :")
    first, last = (on_grid(Coordinate(side), within.voxel_size, within.offset) for side in (begin, end))
    roi = Roi(first, last - first)
    if roi.empty:
        raise BadInput(f"ROI {text[:80]!r}: holds no voxel of {within.voxel_size} nm")
    within.check(roi)
    return roi


def check_volume(volume: Path, roi: str | None, has_labels: bool) -> None:
    """Raise BadInput if a container lacks raw, or the labels that it should have, or if a region is not inside."""
    raw = open_volume(volume / RAW)
    if roi is not None:
        try:
            parse_roi(roi, raw)
        except BadInput as error:
            raise BadInput(str(error) if str(volume) in str(error) else f"{volume}: {error}") from None
    if has_labels and not holds_array(volume / LABELS):
        raise BadInput(f"{volume}: has no {LABELS}, expected labels to train on or to score by")


def shared_volume(some: Iterable[tuple[str, Roi]], others: Iterable[tuple[str, Roi]]) -> str | None:
    """Return the first volume of `some` with a region that shares voxels with one of `others`; None without one.

    Args:
        some: paths of volumes, each with a region in it, nm.
        others: the same.
    """
    known: dict[Path, list[Roi]] = {}
    for name, roi in others:
        known.setdefault(Path(name).resolve(), []).append(roi)
    for name, roi in some:
        if any(not roi.intersect(other).empty for other in known.get(Path(name).resolve(), ())):
            return name
    return None


def format_roi(roi: Roi) -> str:
    """Return a region (nm) as `z0:z1,y0:y1,x0:x1`, the inverse of `parse_roi`."""
    return ",".join(f"{begin}:{end}" for begin, end in zip(json_numbers(roi.begin), json_numbers(roi.end), strict=True))
