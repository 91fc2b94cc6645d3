"""Whether an array has changed: cheaply, from the state of its files, or surely, from its voxels.

The state of a file is its size, its time of change in ns, and its number in the file system: a file that is written
again has another state, even within one second and with the same size. Looking costs about 5 us a file: half a second
for a volume of 10^5 files. Voxels are read whole, up to `MOST_BYTES`.
"""

import hashlib
import json
import os
import stat
from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.common.documents import read_json
from emsuite.common.errors import BadInput
from emsuite.common.files import file_of, sha256
from emsuite.common.geometry import Coordinate, Roi, json_numbers
from emsuite.io.volume import (
    LABELS,
    RAW,
    Volume,
    array_names,
    fingerprint,
    further_files,
    holds_array,
    is_url,
    is_writable,
    name_of_format,
    open_volume,
)

MOST_FILES = 200_000
"""Files that `state` looks at, at most. Behind them, a folder counts with its own time of change alone."""

MOST_BYTES = 4 * 2**30
"""Voxels of larger arrays are not read: names and sizes of their files stand for them."""

_METADATA = (".zarray", ".zattrs", "zarr.json")
_DOCUMENTS = ("zarr.json", ".zattrs", "attributes.json")
"""Of an array's own attributes."""


def state(path: Path, with_numbers: bool = True) -> tuple[str, int]:
    """Return a text that changes with any file of an array, or with its place, and the newest time of change, ns.

    The place is what `told_above` tells.

    Args:
        path: a file, a folder, or an array in a file, as `cube.h5/volumes/raw`.
        with_numbers: the numbers in the file system count, which a copy does not keep.

    Returns:
        `missing` and 0 if there is nothing.

    Raises:
        BadInput: the array lies in other files too, and one of them is missing.
    """
    if (file := file_of(path)) is not None:
        abouts = [other.stat() for other in (file, *further_files(path))]
        return _text([_of(about, with_numbers) for about in abouts]), max(about.st_mtime_ns for about in abouts)
    if not path.is_dir():
        return "missing", 0
    lines, newest, left, folders = list[str](), 0, MOST_FILES, deque([path])
    while folders:
        folder = folders.popleft()
        entries = list(islice(os.scandir(folder), left + 1))
        if len(entries) > left:
            left = 0
            known = [folder, *(folder / name for name in _METADATA if (folder / name).is_file())]
        else:
            left -= len(entries)
            folders += sorted(Path(entry.path) for entry in entries if entry.is_dir())
            known = sorted(Path(entry.path) for entry in entries if not entry.is_dir())
        for item in known:
            about = item.stat() if item.exists() else item.lstat()  # a link may lead nowhere
            lines.append(f"{item.relative_to(path)} {_of(about, with_numbers)}")
            newest = max(newest, about.st_mtime_ns)
    lines += [place] if (place := told_above(path)) else []
    return _text(lines), newest


def content(volume: Volume, roi: Roi | None = None, convert: Callable[[np.ndarray], np.ndarray] | None = None) -> str:
    """Return a text that changes with the voxels of an array.

    Args:
        volume: the array.
        roi: the region that counts, nm; None: all of it.
        convert: maps the voxels to those that count, as a mask to 0 and 1.

    Returns:
        `sha256:` and a hash of position, shape and voxels, whatever the format and the byte order. For a region of more
        than `MOST_BYTES`, the fingerprint of the files, which does not see edits that keep their sizes.
    """
    region = volume.roi if roi is None else roi
    shape = region.shape / volume.voxel_size
    channels = volume.channels or 1
    if int(np.prod([*shape])) * channels * volume.dtype.itemsize > MOST_BYTES:
        return fingerprint(volume.path)
    digest = hashlib.sha256(f"{region.offset} {tuple(shape)}".encode())
    step = max(1, 2**26 // max(1, int(np.prod([*shape[1:]])) * channels * volume.dtype.itemsize))
    for begin in range(0, shape[0], step):
        thickness = min(step, shape[0] - begin)
        slab = Roi(
            region.offset + Coordinate(begin, *[0] * (shape.dims - 1)) * volume.voxel_size,
            Coordinate(thickness, *shape[1:]) * volume.voxel_size,
        )
        voxels = volume.read(slab)
        voxels = convert(voxels) if convert else voxels
        digest.update(np.ascontiguousarray(voxels, voxels.dtype.newbyteorder("<")).data)
    return "sha256:" + digest.hexdigest()


def origin_of(path: Path) -> list[str]:
    """Return texts that change with an array that is read: with its names and sizes, and with its files' states.

    For the settings of outputs that are made from it in one run, or continued.
    """
    return [fingerprint(path), state(path)[0]]


def state_or_voxels(path: Path) -> str:
    """Return `state` of an array that is read; of one on a server, which tells no times, `content_or_files`.

    For the settings of outputs that a stopped run continues: what is read before and after the stop is the same.
    """
    if not is_url(path):
        return state(path)[0]
    return content_or_files(open_volume(path))


def is_on_server(path: Path) -> bool:
    """Return whether an array has no files here, so that nothing but its voxels tells whether they have changed."""
    return state(path)[0] == "missing"


def seen(path: Path) -> dict[str, str]:
    """Return what a record keeps of the files of an array, or of another folder, for `is_as_seen`."""
    return {"files": times(path), "content": _content(path), "place": told_above(path)}


def seen_arrays(container: Path) -> dict[str, dict[str, str]]:
    """Return what `seen` sees of raw and labels of a volume, as far as there are such arrays, by their names in it.

    In an HDF5 file, which changes as a whole, it is all arrays.
    """
    if name_of_format(container) == "hdf5":
        return dict.fromkeys(array_names(container), seen(container))
    names = (RAW, LABELS) if is_writable(container) else ()  # a download may be something else
    return {array: seen(container / array) for array in names if holds_array(container / array)}


def is_as_seen(path: Path, earlier: Mapping[str, Any]) -> bool:
    """Return whether an array, or a folder, is what `seen` saw. Where times are new, files are read."""
    if times(path) == earlier.get("files"):
        return True
    if "place" in earlier and earlier["place"] != told_above(path):
        return False
    known = str(earlier.get("content"))
    return known.startswith("sha256:") and _content(path) == known


def times(path: Path) -> str:
    """Return a text that changes with the names, sizes and times of the files of an array or a folder."""
    # copies that keep the times have other numbers in the file system
    return state(path, with_numbers=False)[0]


def told_above(path: Path) -> str:
    """Return a text that changes with what groups above an array, in files here, say of its place.

    Args:
        path: The folder of an array, or another folder.

    Returns:
        Nothing for an array whose own attributes say the same, as those of the suite, and for what cannot be opened.
    """
    if not any((path / name).is_file() for name in (*_DOCUMENTS, ".zarray")):
        return ""
    try:
        if not holds_array(path):
            return ""
        volume = open_volume(path)
    except BadInput:  # reading it tells the user
        return ""
    order = [int(axis) for axis in getattr(volume.array, "axes", ())]
    grid = [json_numbers(volume.voxel_size), json_numbers(volume.offset)]
    own = _own_attributes(path)
    if not order and [own.get("voxel_size", own.get("resolution")), own.get("offset")] == grid:
        return ""
    return json.dumps([order, *grid])


def _own_attributes(path: Path) -> dict[str, Any]:
    """Return the attributes in the documents of an array itself."""
    for name in _DOCUMENTS:
        if (path / name).is_file():
            document = read_json(path / name)
            attributes = document.get("attributes") if isinstance(document, dict) and name == "zarr.json" else document
            return attributes if isinstance(attributes, dict) else {}
    return {}


def _content(path: Path) -> str:
    if (whole := file_of(path)) is not None:  # of an HDF5 file, all arrays change together
        return "sha256:" + sha256(whole) if whole.stat().st_size <= MOST_BYTES else "too large to be read"
    files = sorted(file for file in path.rglob("*") if file.is_file())
    if sum(file.stat().st_size for file in files) > MOST_BYTES:
        return "too large to be read"
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(path)} {sha256(file)}\n".encode("utf-8", "surrogateescape"))
    return "sha256:" + digest.hexdigest()


def content_or_files(volume: Volume, roi: Roi | None = None) -> str:
    """Return `content` of an array or a region, or the fingerprint of its files if a part of it cannot be read."""
    try:
        return content(volume, roi)
    except BadInput:
        return fingerprint(volume.path)


def voxels_or_times(volume: Volume, roi: Roi | None = None) -> str:
    """Return `content_or_files`; where names and sizes of files stand for voxels, with the times of the files.

    So edits in place are seen, whatever the size; a copy without the times counts as edited.
    """
    told = content_or_files(volume, roi)
    return f"{told} {times(volume.path)}" if told.startswith("listing:") else told


def _of(about: os.stat_result, with_number: bool) -> str:
    # the size of a folder says nothing of its files
    size = 0 if stat.S_ISDIR(about.st_mode) else about.st_size
    return f"{size} {about.st_mtime_ns}" + (f" {about.st_ino}" if with_number else "")


def _text(lines: list[str]) -> str:
    return "state:" + hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:32]
