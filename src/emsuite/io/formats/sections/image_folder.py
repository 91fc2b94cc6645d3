"""A folder of images, each a section: PNG, JPEG or TIFF, grey, all of one size. Read only, by sections.

    s1.png s2.png s10.png   ->   (Z, Y, X)      natural order: 2 comes before 10

Files whose names begin with a point, and files of other kinds, are no sections.
"""

import functools
import itertools
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from emsuite.common.errors import BadInput
from emsuite.common.provenance import checksum
from emsuite.io.formats.base import Mode, StoredArray
from emsuite.io.formats.sections.lazy_array import (
    Box,
    LazyArray,
    RecentlyRead,
    check_size,
    check_voxels,
    natural_order,
)
from emsuite.io.formats.sections.tiff import Pages

_KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}
_READERS: dict[str, Any] = {"PNG": PngImageFile, "JPEG": JpegImageFile}
"""Pillow's own classes: its `open` would take files of any kind, and refuses large sections."""
_TYPES = {"L": np.uint8, "1": np.bool_, "I;16": np.uint16, "I;16B": np.uint16, "I": np.int32, "F": np.float32}
_LOOKED_AT = 64
"""Sections whose sizes are compared when the folder is opened; the others follow as they are read."""
_KEPT_BYTES = 2**27
_SHOWN = 8


def open_array(container: str, name: str, mode: Mode) -> StoredArray:
    """See `Format.open_array`."""
    folder = Path(container)
    if name:
        raise BadInput(f"{folder}: has no array '{name}'; a folder of images is one array, expected its path alone")
    if mode != "r":
        raise BadInput(f"{folder}: images are read only, expected a path as VOLUME.zarr/volumes/raw to write to")
    kind, paths = _listed(folder)
    attributes: dict[str, Any] = {"sections": f"{paths[0].name} to {paths[-1].name}"}
    if missing := _missing_numbers(paths):
        attributes["missing_numbers"] = missing
    return StoredArray(_Sections(folder, kind, paths).as_array(), attributes)


def array_names(container: str) -> list[str]:
    """See `Format.array_names`: the folder itself."""
    _listed(Path(container))
    return [""]


def holds_array(container: str, name: str) -> bool:
    """See `Format.holds_array`."""
    if not Path(container).exists():
        raise BadInput(f"{container}: no such volume; expected a folder of images")
    return not name


def fingerprint(container: str, name: str) -> str:
    """See `Format.fingerprint`: the checksum of the folder."""
    return checksum(Path(container) / name)


def is_image_folder(folder: Path) -> bool:
    """Return whether a folder holds images."""
    try:
        with os.scandir(folder) as entries:
            return any(_kind(entry.name) for entry in entries)
    except OSError:
        return False


def describe_image(path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Return the shape (Y, X) and the type of one grey image, from the head of its file; BadInput for any other."""
    if (kind := _kind(path.name)) is None:
        raise BadInput(f"{path}: expected an image, {', '.join(_KINDS)}")
    return _describe(kind, path)


def read_image(path: Path) -> np.ndarray:
    """Return one grey image (Y, X) in the type of its file; raise BadInput if it is damaged, or no grey image."""
    (_, dtype), kind = describe_image(path), str(_kind(path.name))
    if kind != "TIFF":
        return _unpacked(kind, path, dtype)
    pages = Pages(path)
    try:
        return np.asarray(pages.as_array()[0])
    finally:
        pages.close()


def _kind(name: str) -> str | None:
    return None if name.startswith(".") else _KINDS.get(os.path.splitext(name)[1].lower())


def _listed(folder: Path) -> tuple[str, list[Path]]:
    """Return the kind of the images in a folder, and their paths in order."""
    try:
        return _listed_at(folder, folder.stat().st_mtime_ns)
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(f"{folder}: no such volume; expected a folder of images") from None


@functools.lru_cache(maxsize=8)
def _listed_at(folder: Path, _changed: int) -> tuple[str, list[Path]]:
    names = sorted((entry.name for entry in os.scandir(folder) if _kind(entry.name)), key=natural_order)
    kinds = sorted({str(_kind(name)) for name in names})
    if len(kinds) != 1:
        held = " and ".join(kinds) or "no"
        raise BadInput(f"{folder}: holds {held} images, expected sections of one kind")
    return kinds[0], [folder / name for name in names]


def _missing_numbers(paths: list[Path]) -> list[int]:
    """Return the first numbers that no section has, by the last number in each name."""
    found = [re.findall(r"\d+", path.stem) for path in (paths[0], paths[-1])]
    if not all(found) or int(found[1][-1]) - int(found[0][-1]) == len(paths) - 1:
        return []
    numbers = [int(each[-1]) for path in paths if (each := re.findall(r"\d+", path.stem))]
    gaps = (range(a + 1, min(b, a + 1 + _SHOWN)) for a, b in itertools.pairwise(numbers))
    return list(itertools.islice(itertools.chain.from_iterable(gaps), _SHOWN))


class _Sections:
    """The sections of a folder, the ones read last kept."""

    def __init__(self, folder: Path, kind: str, paths: list[Path]):
        self._kind, self._paths = kind, paths
        self._shape, self._dtype = _describe(self._kind, self._paths[0])
        check_voxels(folder, self._shape, self._dtype)
        step = max(1, len(self._paths) // _LOOKED_AT)
        for path in (*self._paths[::step], self._paths[-1]):
            self._check(path, *_describe(self._kind, path))
        self._recent = RecentlyRead(_KEPT_BYTES)

    def as_array(self) -> LazyArray:
        """Return the array (Z, Y, X) of the sections."""
        shape = (len(self._paths), *self._shape)
        return LazyArray(shape, self._dtype, (1, *self._shape), self._read, self._kind)

    def _check(self, path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
        if (shape, dtype) != (self._shape, self._dtype):
            expected = f"{self._shape} {self._dtype} as {self._paths[0].name}"
            raise BadInput(f"{path}: a section of {shape} {dtype}, expected {expected}")

    def _read(self, box: Box) -> np.ndarray:
        sections, rows, columns = box
        voxels = np.zeros([part.stop - part.start for part in box], self._dtype)
        for z in range(sections.start, sections.stop):
            if self._kind == "TIFF":
                part = self._from_tiff(self._paths[z], rows, columns)
            else:
                part = self._recent.get(z, functools.partial(self._decoded, self._paths[z]))[rows, columns]
            voxels[z - sections.start] = part
        return voxels

    def _from_tiff(self, path: Path, rows: slice, columns: slice) -> np.ndarray:
        pages = Pages(path)
        array = pages.as_array()
        self._check(path, _section_shape(path, array), array.dtype)
        section = array[0, rows, columns]
        pages.close()
        return section

    def _decoded(self, path: Path) -> np.ndarray:
        self._check(path, *_describe(self._kind, path))
        return _unpacked(self._kind, path, self._dtype)


def _unpacked(kind: str, path: Path, dtype: np.dtype) -> np.ndarray:
    try:
        with open(path, "rb") as file, _READERS[kind](file) as image:
            return np.asarray(image).astype(dtype, copy=False)
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # a damaged file: errors of any kind
        raise BadInput(f"{path}: is damaged: it cannot be unpacked: {error}") from None


def _describe(kind: str, path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and type of a section, from the head of its file."""
    if not path.is_file():
        raise BadInput(f"{path}: no file, expected a section")
    if kind == "TIFF":
        pages = Pages(path)
        pages.close()
        array = pages.as_array()
        return _section_shape(path, array), array.dtype
    try:
        with open(path, "rb") as file, _READERS[kind](file) as image:
            mode, (width, height) = image.mode, image.size
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # a damaged file: errors of any kind
        raise BadInput(f"{path}: cannot be read as {kind}, it is damaged: {error}") from None
    if mode not in _TYPES:
        colours = "a palette" if mode == "P" else f"{Image.getmodebands(mode)} colours ({mode})"
        raise BadInput(f"{path}: pixels of {colours}, expected grey (one value a pixel)")
    dtype = np.dtype(_TYPES[mode])
    check_size(path, width * height * dtype.itemsize, path.stat().st_size)
    return (height, width), dtype


def _section_shape(path: Path, array: LazyArray) -> tuple[int, ...]:
    if len(array.shape) != 3 or array.shape[0] != 1:
        raise BadInput(f"{path}: holds {array.shape} voxels, expected one section in each file of the folder")
    return array.shape[1:]
