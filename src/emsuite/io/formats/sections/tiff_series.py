"""Which pages of a TIFF file are its sections: all of them, but for smaller copies that the file says are such.

tifffile sorts pages of other sizes, types or colours into further series. Sections that follow one of these would move
up by a page, so that a file with such a page is refused.
"""

import functools
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from tifffile import COMPRESSION, PHOTOMETRIC, TiffFile

from emsuite.common.errors import BadInput

_log = logging.getLogger(__name__)
_SECTION_AXES = "ZTIQC"
"""What the axis of sections is called by tifffile's letters: Z, time, images, an axis without a name, channels."""


def check_pages(path: Path) -> None:
    """Raise BadInput for a file whose pages are of several kinds, or have colours of a palette.

    Pages that the file calls reduced or a mask (`NewSubfileType`), and those of SubIFDs, are copies for viewers.
    """
    about = path.stat()
    _check_pages(path, (about.st_size, about.st_mtime_ns, about.st_ino))


def check_series(path: Path, file: TiffFile) -> None:
    """Raise BadInput for a file with pages that are no sections of its first series, and no copies for viewers."""
    levels = [level for series in file.series for level in series.levels]
    if other := next((level.keyframe for level in levels[1:] if not _is_copy(level.keyframe)), None):
        raise BadInput(f"{path}: its metadata tell of another image from page {other.index + 1} on, expected one image")
    known = {number for series in levels for number in _numbers(file, series)}
    if (lost := next((number for number in range(len(file.pages)) if number not in known), None)) is not None:
        raise BadInput(f"{path}: page {lost + 1} belongs to no section that its metadata tell of, expected it to")


@functools.lru_cache(maxsize=256)
def _check_pages(path: Path, _state: tuple[int, ...]) -> None:
    """Compare each page with the first one; tifffile itself looks at a few of them."""
    with TiffFile(path) as file:
        first: Any = file.pages.first
        how = COMPRESSION(first.compression).name
        if first.photometric == PHOTOMETRIC.MINISWHITE:
            _log.warning("%s: says that 0 is white; voxels are taken as they are stored, not inverted", path)
        for page in cast(Iterable[Any], file.pages):
            # ImageJ's palettes colour values for the screen, as of labels
            if page.photometric == PHOTOMETRIC.PALETTE and not (file.is_imagej or _is_grey(page.colormap)):
                raise BadInput(
                    f"{path}: page {page.index + 1} has pixels of a palette, expected grey (one value a pixel)"
                )
            if page.hash == first.hash or _is_copy(page):
                continue
            if _about(page) == _about(first):
                raise BadInput(
                    f"{path}: its pages of {first.shape} pixels are stored in several ways (page {page.index + 1} in "
                    f"another one than page 1, {how}); expected one compression and size of strips"
                )
            raise BadInput(
                f"{path}: page {page.index + 1} has {_about(page)}, expected {_about(first)} as page 1: "
                "all pages are sections of one size and type"
            )


def _is_copy(page: Any) -> bool:
    return bool(page.is_reduced or page.is_mask or page.is_subifd)


def _numbers(file: TiffFile, series: Any) -> Iterator[int]:
    """Yield the numbers of the pages of a series; those of SubIFDs and of other files are none of this file."""
    if series.dataoffset is not None:  # pages without entries of their own, as ImageJ writes them
        yield from range(series.keyframe.index, series.keyframe.index + len(series))
        return
    for page in series.pages:
        if page is not None and page.parent is file and isinstance(page.index, int):
            yield page.index


def _about(page: Any) -> str:
    return f"{page.shape} pixels of {page.dtype}, {PHOTOMETRIC(page.photometric).name.lower()}"


def _is_grey(palette: np.ndarray | None) -> bool:
    """Return whether a palette gives each value its own grey, from black to white."""
    if palette is None or len(palette) != 3 or palette.shape[1] < 2:
        return False
    ramp = np.arange(palette.shape[1]) * (255 / (palette.shape[1] - 1))
    greys = palette.astype(np.int64) // (257 if palette.max() > 255 else 1)  # some programs write bytes
    return bool((np.abs(greys - ramp) <= 1).all())


def order_of(path: Path, axes: str, shape: tuple[int, ...]) -> tuple[int | None, int | None]:
    """Return the axes of channels and of sections in a series; raise BadInput for others that are longer than 1."""
    if "S" in axes:
        raise BadInput(f"{path}: pixels of {shape[axes.index('S')]} colours, expected grey (one value a pixel)")
    if axes[-2:] != "YX":
        raise BadInput(f"{path}: its axes are {axes}, expected pages of Y and X")
    long = [axis for axis in range(len(axes) - 2) if shape[axis] > 1]
    # sections that nobody named are written as channels by some programs
    channel = next((axis for axis in long if axes[axis] == "C"), None) if len(long) > 1 else None
    rest = [axis for axis in long if axis != channel]
    named = next(
        (axes.index(letter) for letter in _SECTION_AXES if letter in axes and axes.index(letter) in rest), None
    )
    if len(rest) > 1 or (rest and named is None):
        raise BadInput(f"{path}: its axes are {axes} of lengths {shape}, expected sections, rows and columns (ZYX)")
    return channel, named
