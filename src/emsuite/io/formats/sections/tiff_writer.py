"""TIFF, written: all sections in one file, a page each, with the voxel size in OME's metadata.

    page 0: section 0, page 1: section 1, ...; with channels, all sections of the first one come first

Pages are packed by deflate. A file of more than 2 GB is a BigTIFF. OME has no position of a volume; the position of the
first plane stands for it, which is read again from files of this suite alone.
"""

import json
import math
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from tifffile import TiffWriter

from emsuite.common.errors import BadInput
from emsuite.io.formats.base import NewArray, ReadBox

CREATOR = "emsuite"
"""What the metadata of written files name as their program."""
TYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")
"""The types of pixels that OME knows, without complex and single bits."""
_ONE_OF = ", ".join(TYPES[:-1]) + f" or {TYPES[-1]}"
_CLASSIC = 2**31  # bytes of voxels
_SLAB = 2**26  # bytes that are read at once, unless a page is larger
_STRIP = 2**20
_SPACE = uuid.UUID("3f2a6c1e-0f5b-4f0e-8d53-0d7b1f0a9c55")


def holds_type(dtype: np.dtype) -> bool:
    """See `FileFormat.holds_type`."""
    return dtype.name in TYPES


def planned(container: str, name: str, new: NewArray) -> NewArray:
    """See `FileFormat.planned`."""
    if name:
        raise BadInput(f"{container}: a TIFF file is one array without a name, expected its path alone, not '{name}'")
    dtype, spatial = np.dtype(new.dtype), new.shape[-3:]
    if not holds_type(dtype):
        raise BadInput(f"{container}: TIFF with OME's metadata holds no {dtype.name}, expected --dtype {_ONE_OF}")
    if len(new.attributes["voxel_size"]) != 3 or 0 in new.shape:
        raise BadInput(f"{container}: an array of {new.shape} voxels, expected (Z, Y, X) or (C, Z, Y, X) to write TIFF")
    if len(new.shape) == 4 and 1 in new.shape[:2]:
        raise BadInput(f"{container}: {new.shape} voxels: TIFF holds channels of several sections, expected 2 or more")
    return replace(new, chunks=(*new.shape[:-3], 1, *spatial[1:]), shards=None)


def write_array(container: str, name: str, new: NewArray, read: ReadBox) -> None:
    """See `FileFormat.write_array`."""
    dtype = np.dtype(new.dtype)
    nbytes, row = math.prod(new.shape) * dtype.itemsize, new.shape[-1] * dtype.itemsize
    # ImageJ alone reads the resolution of a pixel, and no OME
    resolution = [1e7 / float(n) for n in reversed(new.attributes["voxel_size"][1:])]
    with TiffWriter(container, bigtiff=nbytes > _CLASSIC, ome=True) as writer:
        writer.write(
            _pages(new, read),
            shape=new.shape,
            dtype=dtype,
            photometric="minisblack",
            compression="adobe_deflate",
            rowsperstrip=max(1, min(new.shape[-2], _STRIP // row)),
            resolution=(resolution[0], resolution[1]),
            resolutionunit="CENTIMETER",
            metadata=_metadata(new),
            maxworkers=1,
        )


def _pages(new: NewArray, read: ReadBox) -> Iterator[np.ndarray]:
    """Yield the sections, those of the first channel first; several are read at once."""
    sections, rows, columns = new.shape[-3:]
    depth = max(1, _SLAB // (rows * columns * np.dtype(new.dtype).itemsize))
    plane = (slice(0, rows), slice(0, columns))
    for channel in range(new.shape[0]) if len(new.shape) == 4 else (None,):
        for begin in range(0, sections, depth):
            slab = slice(begin, min(begin + depth, sections))
            first = () if channel is None else (slice(channel, channel + 1),)
            yield from read((*first, slab, *plane)).reshape(-1, rows, columns)


def _metadata(new: NewArray) -> dict[str, Any]:
    size, offset = new.attributes["voxel_size"], new.attributes["offset"]
    planes = math.prod(new.shape[:-2])
    metadata: dict[str, Any] = {"axes": "CZYX"[-len(new.shape) :], "Creator": CREATOR, "Plane": {}}
    for axis, width, begin in zip("ZYX", size, offset, strict=True):
        metadata |= {f"PhysicalSize{axis}": width, f"PhysicalSize{axis}Unit": "nm"}
        metadata["Plane"] |= {f"Position{axis}": [begin] * planes, f"Position{axis}Unit": ["nm"] * planes}
    # tifffile's own are those of the clock
    about = json.dumps([new.shape, str(np.dtype(new.dtype)), size, offset], default=str)
    return metadata | {"UUID": str(uuid.uuid5(_SPACE, about))}
