"""N5, for reading and writing: folders of blocks, whose attributes and axes are in the order x, y, z.

cube.n5/attributes.json                 {"n5": "2.5.1"}
cube.n5/volumes/raw/attributes.json     dimensions, blockSize, dataType, compression; voxel size, offset and units
cube.n5/volumes/raw/0/3/1               the block at x 0, y 3, z 1

The suite's arrays are (C) Z Y X, so all lists are turned round. The voxel size is `resolution` with `units` (Janelia's,
tensorstore's), `pixelResolution` times `downsamplingFactors` (the N5 viewer's), or what a group above says times the
factors (Paintera's). Voxels of several sizes share their corner: `offset` or `translate`, else 0, is that of the first.
"""

import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.files import remove, write_text
from emsuite.common.provenance import checksum
from emsuite.io.formats.axes import elements_of, numbers, unit_factors
from emsuite.io.formats.base import Mode, NewArray, StoredArray
from emsuite.io.formats.tensors.store import Region, TensorArray, check_file, file_store
from emsuite.io.formats.zarr_chunks import read_plain

ATTRIBUTES = "attributes.json"
_VERSION = "2.5.1"
_TYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64")
_OWN = ("dimensions", "blockSize", "dataType", "compression")
_GRID = ("resolution", "pixelResolution", "downsamplingFactors", "offset", "translate", "units", "axes", "voxel_size")
_COMPRESSION = {"type": "gzip", "level": 1}
"""What every program reads that reads N5."""


def open_array(container: str, name: str, mode: Mode) -> StoredArray:
    """See `Format.open_array`."""
    folder = Path(container) / name
    if not Path(container).is_dir():
        raise BadInput(f"{container}: no such volume; expected an N5 folder")
    document = attributes_of(folder)
    if document is None or not is_dataset(document):
        names = sorted(_datasets(Path(container)))
        raise BadInput(f"{container}: has no array '{name}'; it holds {', '.join(names[:8]) or 'no arrays'}")
    above = [group for group in folder.parents if group.is_relative_to(container)]
    groups = [attributes_of(group) or {} for group in above]
    return describe(str(folder), file_store(folder), document, groups, Path(folder), mode == "r+")


def describe(
    where: str,
    store: dict[str, Any],
    document: dict[str, Any],
    groups: list[dict[str, Any]],
    folder: Path | None = None,
    writable: bool = False,
) -> StoredArray:
    """Return an array from its attributes.

    Args:
        where: The path or URL, for messages.
        store: tensorstore's kvstore.
        document: The attributes of the array.
        groups: The attributes of the groups above, the nearest first.
        folder: The folder of the blocks, if they are local files.
        writable: Whether voxels are to be written.

    Raises:
        BadInput: The attributes describe no array of numbers, or no grid of voxels.
    """
    try:
        own = {key: document[key] for key in _OWN if key in document}
        shape, chunks = _lengths(document["dimensions"]), _lengths(document["blockSize"])
        if len(shape) != len(chunks) or document["dataType"] not in _TYPES:
            raise ValueError(f"dataType {document['dataType']!r} of {shape} voxels in blocks of {chunks}")
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{where}/{ATTRIBUTES}: describes no array: {error}") from None
    spec = json.dumps({"driver": "n5", "kvstore": store, "metadata": own})
    files = BlockFiles(str(folder), document["dataType"], chunks, _is_blosc(document)) if folder else None
    kind = np.dtype(document["dataType"])
    array = TensorArray(where, spec, shape, kind, chunks, writable=writable, files=files, assume=True)
    rest = {key: value for key, value in document.items() if key not in (*_OWN, *_GRID)}
    return StoredArray(array, rest | _grid(Path(where), min(len(shape), 3), document, groups))


def array_names(container: str) -> list[str]:
    """See `Format.array_names`."""
    if not Path(container).is_dir():
        raise BadInput(f"{container}: no such volume; expected an N5 folder")
    return sorted(_datasets(Path(container)))


def holds_array(container: str, name: str) -> bool:
    """See `Format.holds_array`."""
    return (Path(container) / name).exists()


def fingerprint(container: str, name: str) -> str:
    """See `Format.fingerprint`: the names and sizes of all files, and the content of the attributes."""
    return checksum(Path(container) / name, read_whole=(ATTRIBUTES,))


def create_array(container: str, name: str, new: NewArray) -> StoredArray:
    """See `WritableFormat.create_array`; N5 has no shards, each chunk is a file."""
    kind, folder = np.dtype(new.dtype).name, Path(container) / name
    if kind not in _TYPES:
        raise BadInput(f"{folder}: N5 holds no voxels of type {kind}, expected one of {', '.join(_TYPES)}")
    remove(folder)
    folder.mkdir(parents=True)
    if name and attributes_of(Path(container)) is None:
        _write(Path(container), {"n5": _VERSION})
    grid = {key: new.attributes[key] for key in ("resolution", "offset") if key in new.attributes}
    document: dict[str, Any] = {
        "dimensions": [int(n) for n in reversed(new.shape)],
        "blockSize": [int(min(n, max(m, 1))) for n, m in zip(reversed(new.chunks), reversed(new.shape), strict=True)],
        "dataType": kind,
        "compression": _COMPRESSION,
    }
    document |= {key: value for key, value in new.attributes.items() if key not in _GRID}
    document |= {key: [*reversed(values)] for key, values in grid.items()}
    size = document.get("resolution", [])
    others = len(new.shape) - len(size) if size else 0  # an axis of channels; other programs want a unit of each axis
    document["pixelResolution"] = {"unit": "nm", "dimensions": size}
    if size:
        document |= {"resolution": [*size, *[1] * others], "units": ["nm"] * len(size) + [""] * others}
    _write(folder, document | ({"n5": _VERSION} if not name else {}))
    return open_array(container, name, "r+")


def rename_array(container: str, old: str, new: str) -> None:
    """See `WritableFormat.rename_array`."""
    remove(Path(container) / new)
    (Path(container) / new).parent.mkdir(parents=True, exist_ok=True)
    (Path(container) / old).rename(Path(container) / new)


def is_n5(folder: Path) -> bool:
    """Return whether a folder is an array or the root of N5."""
    try:
        document = attributes_of(folder)
    except BadInput:
        return True
    return document is not None and ("n5" in document or is_dataset(document))


def is_dataset(document: Mapping[str, Any]) -> bool:
    """Return whether attributes are those of an array, not of a group."""
    return "dimensions" in document


def attributes_of(folder: Path) -> dict[str, Any] | None:
    """Return the attributes of an array or a group, None if it has none; raise BadInput if they are damaged."""
    try:
        return parse(str(folder / ATTRIBUTES), read_plain(folder / ATTRIBUTES))
    except (FileNotFoundError, NotADirectoryError):
        return None


def parse(where: str, text: bytes) -> dict[str, Any]:
    """Return the JSON object of a document; raise BadInput for another content."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise BadInput(f"{where}: holds a {type(content).__name__}, expected a JSON object")
    return content


@dataclass(frozen=True)
class BlockFiles:
    """The files of blocks, at `x/y/z` below the folder of the array."""

    folder: str
    kind: str
    chunks: tuple[int, ...]
    """(C) Z Y X."""
    is_blosc: bool

    def check(self, region: Region) -> None:
        """See `ChunkFiles.check`; blosc's header must not announce more than the voxels."""
        most = math.prod(self.chunks) * np.dtype(self.kind).itemsize
        for path in self.of(region):
            if not check_file(path) or not self.is_blosc:
                continue
            with open(path, "rb") as file:
                header = file.read(4 + 4 * len(self.chunks) + 8)  # of the block, and the first half of blosc's
            if len(header) < 8 or (announced := int.from_bytes(header[-4:], "little")) > most:
                raise BadInput(f"{path}: the chunk is damaged: announces {announced:,} bytes, expected {most:,}")

    def of(self, region: Region) -> Iterator[Path]:
        """See `ChunkFiles.of`."""
        parts = [range(r.start // n, -(-r.stop // n)) for r, n in zip(region, self.chunks, strict=True)]
        return (Path(self.folder, *map(str, reversed(at))) for at in itertools.product(*parts))


def _is_blosc(document: Mapping[str, Any]) -> bool:
    compression = document.get("compression")
    return isinstance(compression, Mapping) and compression.get("type") == "blosc"


def _lengths(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(isinstance(n, int) and not isinstance(n, bool) for n in values):
        raise ValueError(f"{values!r}, expected a list of integers")
    return tuple(reversed(values))


def _datasets(container: Path) -> Iterator[str]:
    """Yield the names of all arrays; links are followed, but not in a circle."""
    for folder, below, files in os.walk(container, followlinks=True):
        here = Path(folder)
        if ATTRIBUTES in files and is_dataset(attributes_of(here) or {}):
            yield here.relative_to(container).as_posix().removeprefix(".")
            below.clear()  # the folders below an array hold blocks, possibly millions
        elif here.is_symlink() and any(parent.samefile(here) for parent in here.parents):
            below.clear()


def _grid(where: Path, dims: int, own: Mapping[str, Any], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Return `voxel_size`, `offset`, their `units` and the names of `axes` in the order z, y, x, as far as known."""
    factors = numbers(where, "downsamplingFactors", own.get("downsamplingFactors", [1] * dims))[:dims]
    grid: dict[str, Any] = {}
    for source in (own, *groups):
        scale = factors if source is not own else [Fraction(1)] * dims
        if (size := source.get("voxel_size", source.get("resolution"))) is not None:
            units = source.get("units", source.get("unit"))
        elif (pixel := source.get("pixelResolution")) is not None:
            size = pixel.get("dimensions") if isinstance(pixel, Mapping) else pixel
            units, scale = pixel.get("unit") if isinstance(pixel, Mapping) else None, factors
        else:
            continue
        spatial = numbers(where, "resolution", size)[:dims]
        wide = [n * f for n, f in zip(spatial, scale, strict=False)]
        grid = {"voxel_size": [_number(n) for n in reversed(wide)]}
        if units is not None:
            grid["units"] = [*reversed(units[:dims])] if isinstance(units, list) else units
        _check_pixels(where, dims, grid, source, factors)
        break
    for source in (own, *groups):
        if "voxel_size" in grid and (offset := _offset(where, source, dims)) is not None:
            grid["offset"] = [_number(n) for n in reversed(offset)]
            break
    if isinstance(axes := own.get("axes"), list):
        grid["axes"] = [*reversed(axes)]
    return grid


def _check_pixels(
    where: Path, dims: int, grid: dict[str, Any], source: Mapping[str, Any], factors: list[Fraction]
) -> None:
    """Raise BadInput if `pixelResolution` times the factors is another voxel size than that of the grid."""
    units = unit_factors(where, dims, StoredArray(None, grid))
    size = [n * f for n, f in zip(numbers(where, "resolution", grid["voxel_size"]), units, strict=False)]
    for pixel in elements_of(where, dims, {key: source[key] for key in ("pixelResolution",) if key in source}):
        wide = [n * f for n, f in zip(pixel.size, reversed(factors), strict=False)]
        if any(abs(a - b) * 1000 > abs(b) for a, b in zip(size, wide, strict=False)):
            said, other = ([_number(n) for n in values] for values in (size, wide))
            raise BadInput(f"{where}: 'resolution' says voxels of {said} nm, but 'pixelResolution' {other} nm")


def _offset(where: Path, source: Mapping[str, Any], dims: int) -> list[Fraction] | None:
    """Return the offset x y z that attributes say, under either name; raise BadInput if the two contradict."""
    said = {key: numbers(where, key, source[key])[:dims] for key in ("offset", "translate") if source.get(key)}
    if len(said) == 2 and said["offset"] != said["translate"]:
        written = {key: [_number(n) for n in values] for key, values in said.items()}
        raise BadInput(f"{where}: 'offset' {written['offset']} and 'translate' {written['translate']} disagree")
    return next(iter(said.values()), None)


def _number(exact: Fraction) -> int | float:
    return int(exact) if exact.denominator == 1 else float(exact)


def _write(folder: Path, document: dict[str, Any]) -> None:
    write_text(folder / ATTRIBUTES, json.dumps(document))
