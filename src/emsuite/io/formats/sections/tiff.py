"""TIFF: a file of one or many pages, BigTIFF, ImageJ's and OME's among them. Read by strips and tiles of a page.

    cube.tif -> series of tifffile -> axes Z, Y, X, or C, Z, Y, X -> pages -> the strips or tiles inside a box

tifffile reads the metadata and decodes; pillow decodes what tifffile would need another package for.
"""

import html
import logging
import math
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import TiffImagePlugin
from tifffile import COMPRESSION, TiffFile

from emsuite.common.errors import BadInput
from emsuite.common.provenance import checksums
from emsuite.io.formats.base import Mode, StoredArray
from emsuite.io.formats.sections.lazy_array import Box, LazyArray, check_size, check_voxels, read_bytes
from emsuite.io.formats.sections.tiff_metadata import attributes_of
from emsuite.io.formats.sections.tiff_series import check_pages, check_series, order_of
from emsuite.io.formats.sections.tiff_writer import holds_type as holds_type
from emsuite.io.formats.sections.tiff_writer import planned as planned
from emsuite.io.formats.sections.tiff_writer import write_array as write_array

_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BY_TIFFFILE = {None, "ADOBE_DEFLATE", "DEFLATE", "LZMA", "PACKBITS"}
"""Compressions that tifffile decodes without a further package, and so by tiles; pillow decodes whole pages."""
_PILLOWS_TYPES = ("uint8", "uint16", "float32", "bool")


def open_array(container: str, name: str, mode: Mode) -> StoredArray:
    """See `Format.open_array`."""
    path = Path(container)
    if name:
        raise BadInput(f"{path}: has no array '{name}'; a TIFF file is one array, expected its path alone")
    if mode != "r":
        raise BadInput(f"{path}: TIFF is read only, expected a path as VOLUME.zarr/volumes/raw to write to")
    pages = Pages(path)
    return StoredArray(pages.as_array(), pages.attributes)


def array_names(container: str) -> list[str]:
    """See `Format.array_names`: the file itself."""
    open_array(container, "", "r")
    return [""]


def holds_array(container: str, name: str) -> bool:
    """See `Format.holds_array`."""
    if not Path(container).exists():
        raise BadInput(f"{container}: no such volume; expected a TIFF file")
    return not name


def fingerprint(container: str, name: str) -> str:
    """See `Format.fingerprint`: the checksum of the file, and of those that OME's metadata name."""
    return checksums(Path(container), further_files(container, name))


def further_files(container: str, name: str) -> list[Path]:
    """See `Format.further_files`: those that OME's metadata name."""
    try:
        with TiffFile(container) as file:
            names = re.findall(r'FileName="([^"]+)"', file.ome_metadata or "")
    except Exception:  # tifffile raises errors of many types for damaged files, which say more when they are opened
        return []
    files = {Path(container).parent / html.unescape(other) for other in names}
    return sorted(file for file in files if file.is_file() and not file.samefile(container))


def is_tiff(file: Path) -> bool:
    """Return whether a file has a signature of TIFF."""
    try:
        with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            return stream.read(4) in _SIGNATURES
    except OSError:
        return False


class _Log(logging.Handler):
    """Keeps what tifffile says of a file, which it reads as far as it can."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.damage = list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or "invalid offset to first page" in record.getMessage():
            self.damage.append(record.getMessage())


_log_lock = threading.Lock()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise BadInput for whatever tifffile raises, or logs as an error, within the block."""
    logger, kept = logging.getLogger("tifffile"), _Log()
    with _log_lock:
        propagate, logger.propagate = logger.propagate, False
        logger.addHandler(kept)
        try:
            yield
        except (BadInput, MemoryError, PermissionError):
            raise
        except FileNotFoundError:
            raise BadInput(f"{path}: no such volume; expected a TIFF file") from None
        except Exception as error:  # a damaged file: errors of any kind
            raise BadInput(f"{path}: cannot be read as TIFF, it is damaged: {error}") from None
        finally:
            logger.removeHandler(kept)
            logger.propagate = propagate
    if kept.damage:
        raise BadInput(f"{path}: cannot be read as TIFF, it is damaged: {kept.damage[0]}")


class Pages:
    """The pages of a file's first series. Positions in the file are read when a page is, by each process anew."""

    def __init__(self, path: Path):
        self._path, self._lock = path, threading.Lock()
        if not path.is_file():
            raise BadInput(f"{path}: no such volume; expected a TIFF file")
        self._process, self._file = -1, cast(TiffFile | None, None)
        with _reading(path):
            file = self._opened()
            check_pages(path)
            series = file.series[0]
            page = series.keyframe
            check_series(path, file)
            self.axes, self.shape = series.axes, tuple(series.shape)
            self._contiguous = series.dataoffset
            self._dtype = np.dtype(series.dtype).newbyteorder(file.byteorder)
            self._section = (page.imagelength, page.imagewidth)
            self._order = order_of(path, self.axes, self.shape)
            self.attributes = attributes_of(path, file)
            self.compression = None if page.compression == 1 else COMPRESSION(page.compression).name
            self._by_tiles = self.compression in _BY_TIFFFILE and page.predictor in (1, 2)
            self._is_inverted = page.photometric == 0
            if page.imagedepth != 1:
                raise BadInput(f"{path}: its tiles have a depth of {page.imagedepth}, expected a page for each section")
            self._segment = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
            if min(*self._segment, *self._section) < 1:
                raise BadInput(f"{path}: is damaged: pages of {self._section} in parts of {self._segment} pixels")
        check_voxels(path, self.shape, self._dtype)
        if self._contiguous is not None:
            end, size = self._contiguous + math.prod(self.shape) * self._dtype.itemsize, path.stat().st_size
            if end > size:
                raise BadInput(f"{path}: is damaged: its voxels end at byte {end:,}, and the file has {size:,}")

    def as_array(self) -> LazyArray:
        """Return the array of the pages, (Z, Y, X) or (C, Z, Y, X)."""
        lengths = [self.shape[axis] if axis is not None else 1 for axis in self._order]
        channels = lengths[:1] if self._order[0] is not None else []
        shape = (*channels, lengths[1], *self._section)
        rows, columns = (min(n, whole) for n, whole in zip(self._segment, self._section, strict=True))
        rows = rows if self._contiguous is None else min(64, self._section[0])
        dtype = self._dtype.newbyteorder("=")
        return LazyArray(shape, dtype, (*[1] * len(channels), 1, rows, columns), self._read, self.compression)

    def _read(self, box: Box) -> np.ndarray:
        channels = box[0] if len(box) == 4 else slice(0, 1)
        sections, rows, columns = box[-3:]
        voxels = np.zeros([part.stop - part.start for part in (channels, *box[-3:])], self._dtype.newbyteorder("="))
        for c in range(channels.start, channels.stop):
            for z in range(sections.start, sections.stop):
                voxels[c - channels.start, z - sections.start] = self._read_page(self._number(c, z), rows, columns)
        return voxels if len(box) == 4 else voxels[0]

    def _number(self, channel: int, section: int) -> int:
        """Return which page of the series holds a section of a channel."""
        number = 0
        for axis, length in enumerate(self.shape[:-2]):
            place = channel if axis == self._order[0] else section if axis == self._order[1] else 0
            number = number * length + place
        return number

    def _read_page(self, number: int, rows: slice, columns: slice) -> np.ndarray:
        if self._contiguous is not None:
            length, width = self._section
            row = width * self._dtype.itemsize
            begin = self._contiguous + (number * length + rows.start) * row
            packed = read_bytes(self._path, begin, (rows.stop - rows.start) * row)
            return np.frombuffer(packed, self._dtype).reshape(-1, width)[:, columns]
        page, segments = self._segments(number)
        path = Path(page.parent.filehandle.path)  # OME's series may have files beside this one
        if not self._by_tiles:
            return self._by_pillow(path, page, rows, columns)
        voxels = np.zeros((rows.stop - rows.start, columns.stop - columns.start), self._dtype.newbyteorder("="))
        for index, offset, length in segments(rows, columns):
            self._decode_into(voxels, page, index, read_bytes(path, offset, length), (rows.start, columns.start))
        return voxels

    def _decode_into(self, voxels: np.ndarray, page: Any, index: int, packed: bytes, corner: tuple[int, int]) -> None:
        height, width = self._segment
        check_size(self._path, height * width * self._dtype.itemsize, len(packed))
        try:
            segment, (_, _, y, x, _), _ = page.keyframe.decode(packed, index)
        except Exception as error:  # what a decoder raises for damage
            raise BadInput(f"{self._path}: {_why(error, self.compression)}") from None
        segment = segment[0, :, :, 0]
        top, left = y - corner[0], x - corner[1]
        height, width = segment.shape
        inside = (slice(max(0, top), top + height), slice(max(0, left), left + width))
        part = segment[max(0, -top) :, max(0, -left) :]
        target = voxels[inside]
        target[...] = part[: target.shape[0], : target.shape[1]]

    def _segments(self, number: int) -> tuple[Any, Any]:
        """Return a page and a function that yields index, position and length of the strips or tiles in a box."""
        with self._lock, _reading(self._path):
            page = self._opened().series[0].pages[number]
            if page is None:
                raise BadInput(f"{self._path}: is damaged: page {number} is missing")
            offsets, lengths = page.dataoffsets, page.databytecounts
        height, width = self._segment
        across = -(-self._section[1] // width)
        if len(offsets) < across * -(-self._section[0] // height) or len(lengths) < len(offsets):
            raise BadInput(f"{self._path}: is damaged: page {number} lists {len(offsets)} of its strips or tiles")

        def inside(rows: slice, columns: slice) -> Iterator[tuple[int, int, int]]:
            for down in range(rows.start // height, -(-rows.stop // height)):
                for right in range(columns.start // width, -(-columns.stop // width)):
                    index = down * across + right
                    if lengths[index]:  # a tile that is left out is 0
                        yield index, offsets[index], lengths[index]

        return page, inside

    def _by_pillow(self, path: Path, page: Any, rows: slice, columns: slice) -> np.ndarray:
        """Return a part of a page in a compression that tifffile decodes with further packages alone."""
        if self._dtype.name not in _PILLOWS_TYPES or self._is_inverted:
            values = f"{self._dtype}, white as 0," if self._is_inverted else str(self._dtype)
            raise BadInput(f"{path}: {values} packed by {self.compression}, expected it not packed, or by zip")
        check_size(path, math.prod(self._section) * self._dtype.itemsize, sum(page.databytecounts))
        try:
            with open(path, "rb") as file, TiffImagePlugin.TiffImageFile(file) as image:
                image.seek(page.index)
                voxels = np.asarray(image.crop((columns.start, rows.start, columns.stop, rows.stop)))
        except Exception as error:  # a damaged page: errors of any kind
            raise BadInput(f"{path}: {_why(error, self.compression)}") from None
        return voxels.astype(self._dtype.newbyteorder("="), copy=False)

    def close(self) -> None:
        """Close the file; it is opened again when a page is read."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> TiffFile:
        """Return the file; a forked process opens it anew, because the position in it would be shared."""
        if self._file is None or self._process != os.getpid():
            self._file, self._process = TiffFile(self._path), os.getpid()
        return self._file


def _why(error: Exception, compression: str | None) -> str:
    if "imagecodecs" in str(error):
        return f"packed by {compression}, which needs the package imagecodecs; expected it not packed, or by zip"
    return f"is damaged: a part of it cannot be unpacked: {error}"
