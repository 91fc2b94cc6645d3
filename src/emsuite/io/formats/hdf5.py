"""HDF5, as CREMI's volumes come: many arrays in a file, with `resolution` and `offset` (nm; z, y, x) as attributes.

One process writes a file, block by block; chunks are packed by gzip.
"""

import itertools
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.provenance import checksums
from emsuite.io.formats.base import Mode, NewArray, ReadBox, StoredArray
from emsuite.io.formats.hdf5_links import linked_files

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_GZIP = 4
_BLOCK = 2**26  # bytes that are read at once, unless a chunk is larger
_DAMAGED = (OSError, RuntimeError, KeyError, ValueError, TypeError, UnicodeError)
"""What h5py raises for a file with garbage inside."""


def open_array(container: str, name: str, mode: Mode) -> StoredArray:
    """See `Format.open_array`; the file stays open as long as the array is used."""
    file = _open(container, mode)
    try:
        item = _item(file, container, name)
        if not isinstance(item, h5py.Dataset):
            raise BadInput(f"{container}: has no array '{name}'; it holds {', '.join(_names(file)[:8]) or 'no arrays'}")
        _check(item, f"{container}/{name}", Path(container).parent)
        groups = tuple(_groups_above(file, name))
        return StoredArray(item, dict(item.attrs), tuple(axis.label for axis in item.dims), groups)
    except _DAMAGED as error:
        raise BadInput(f"{container}: cannot be read as HDF5, '{name}' is damaged: {error}") from None


def array_names(container: str) -> list[str]:
    """See `Format.array_names`."""
    with _open(container, "r") as file:
        try:
            return sorted(_names(file))
        except _DAMAGED as error:
            raise BadInput(f"{container}: cannot be read as HDF5: {error}") from None


def holds_array(container: str, name: str) -> bool:
    """See `Format.holds_array`."""
    with _open(container, "r") as file:
        try:
            return name in file
        except _DAMAGED as error:
            raise BadInput(f"{container}: cannot be read as HDF5: {error}") from None


def fingerprint(container: str, name: str) -> str:
    """See `Format.fingerprint`: the checksum of the whole file, for each of its arrays, and of those it leads to."""
    return checksums(Path(container), further_files(container, name))


def further_files(container: str, name: str) -> list[Path]:
    """See `Format.further_files`."""
    return linked_files(Path(container), name)


def holds_type(dtype: np.dtype) -> bool:
    """See `FileFormat.holds_type`."""
    return dtype.kind in "biuf"


def planned(container: str, name: str, new: NewArray) -> NewArray:
    """See `FileFormat.planned`."""
    if not name.strip("/"):
        raise BadInput(f"{container}: expected the name of an array in the file too, as {container}/volumes/raw")
    if Path(container).exists():
        with _open(container, "r") as file:
            parts = name.split("/")
            for depth in range(1, len(parts)):
                if isinstance(file.get("/".join(parts[:depth])), h5py.Dataset):
                    raise BadInput(
                        f"{container}: '{'/'.join(parts[:depth])}' is an array, and '{name}' would lie in it"
                    )
            if isinstance(file.get(name), h5py.Group):
                raise BadInput(f"{container}: '{name}' is a group of arrays, expected the name of an array")
    chunks = tuple(min(chunk, n) for chunk, n in zip(new.chunks, new.shape, strict=True))
    if 0 in new.shape:
        raise BadInput(f"{container}/{name}: shape {new.shape} holds no voxel, expected at least 1 along each axis")
    return replace(new, chunks=chunks, shards=None)


def write_array(container: str, name: str, new: NewArray, read: ReadBox) -> None:
    """See `FileFormat.write_array`; other arrays in the file stay."""
    with h5py.File(container, "a") as file:
        if name in file:
            del file[name]
        array = file.create_dataset(
            name, new.shape, new.dtype, chunks=new.chunks, compression="gzip", compression_opts=_GZIP, shuffle=True
        )
        for key, value in new.attributes.items():
            array.attrs[key] = _attribute(value)
        for box in _boxes(new):
            array[box] = read(box)


def write_attributes(container: str, attributes: Mapping[str, Any]) -> None:
    """Write attributes of the file itself."""
    with h5py.File(container, "a") as file:
        for key, value in attributes.items():
            file.attrs[key] = _attribute(value)


def _attribute(value: Any) -> Any:
    """Return a value that HDF5 holds: a number, a text or an array; others as JSON."""
    held = np.asarray(value) if isinstance(value, list | tuple) and value else None
    if isinstance(value, bool | int | float | str) or (held is not None and held.dtype.kind in "biuf"):
        return value
    if held is not None and all(isinstance(n, str) for n in value):
        return value
    return json.dumps(value)


def _boxes(new: NewArray) -> Iterator[tuple[slice, ...]]:
    """Yield boxes of whole chunks, the last axes first."""
    block = list(new.chunks)
    for axis in reversed(range(len(block))):
        room = _BLOCK // (math.prod(block) * np.dtype(new.dtype).itemsize)
        block[axis] = min(new.shape[axis], block[axis] * max(1, room))
    steps = (range(0, n, length) for n, length in zip(new.shape, block, strict=True))
    for begins in itertools.product(*steps):
        yield tuple(slice(b, min(b + n, end)) for b, n, end in zip(begins, block, new.shape, strict=True))


def is_hdf5(file: Path) -> bool:
    """Return whether a file has the signature of HDF5, at its begin or behind a block for other programs."""
    try:
        with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            for begin in (0, 512, 1024, 2048, 4096, 8192):
                stream.seek(begin)
                if stream.read(len(_SIGNATURE)) == _SIGNATURE:
                    return True
    except OSError:
        return False
    return False


def _open(container: str, mode: Mode) -> h5py.File:
    try:
        if not stat.S_ISREG(os.stat(container).st_mode):
            raise BadInput(f"{container}: is no file; expected an HDF5 file")
        return h5py.File(container, mode)
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(f"{container}: no such volume; expected an HDF5 file") from None
    except _DAMAGED as error:
        raise BadInput(f"{container}: cannot be read as HDF5: {error}") from None


def _item(file: h5py.File, container: str, name: str) -> Any:
    """Return what bears a name, None if nothing does; raise BadInput for a link that leads to another file."""
    parts = name.strip("/").split("/") if name else []
    for depth in range(1, len(parts) + 1):
        link = file.get("/".join(parts[:depth]), getlink=True)
        if isinstance(link, h5py.ExternalLink):
            target = Path(container).parent / link.filename
            if not target.is_file():
                raise BadInput(f"{container}: '{name}' leads to {link.filename}, which is no file")
    return file.get(name) if name else file


def _check(dataset: h5py.Dataset, path: str, folder: Path) -> None:
    if dataset.dtype.kind not in "biuf":
        raise BadInput(f"{path}: voxels of type {dataset.dtype}, expected numbers")
    if dataset.shape is None:
        raise BadInput(f"{path}: holds no voxels, expected an array")
    others = [file for file, _, _ in dataset.external or ()]
    others += [source.file_name for source in dataset.virtual_sources()] if dataset.is_virtual else []
    for other in others:
        if other != "." and not (folder / other).is_file():
            raise BadInput(f"{path}: its voxels lie in {other}, which is no file")


def _groups_above(file: h5py.File, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    parts = name.strip("/").split("/")
    for depth in range(len(parts) - 1, -1, -1):
        yield "/".join(parts[depth:]), dict(file["/".join(parts[:depth]) or "/"].attrs)


def _names(file: h5py.File) -> list[str]:
    """Return the names of all arrays but those of text, as CREMI's `annotations/types`."""
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if _is_array(item) else None)
    return names


def _is_array(item: Any) -> bool:
    return isinstance(item, h5py.Dataset) and h5py.check_string_dtype(item.dtype) is None
