"""The files of an output as its manifest records them, and how they differ from this later."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from emsuite.common.files import METADATA, files_below, sha256

_ALWAYS_READ = 2**20
"""Bytes of a file that is compared by its content even if its size and time are those of its record."""


def written(path: Path, parts: Iterable[str] = ()) -> dict[str, Any]:
    """Return what a manifest records of the files of its output.

    Args:
        path: a file, or a folder, or nothing.
        parts: the names in the folder that count; none: all.

    Returns:
        of nothing, nothing; of a file, `size`, `mtime_ns` and `sha256`; of a folder, for each zarr array in it, or else
        for the folder itself, under its name: the number of `files`, and a hash of their names and sizes as `listing`.
        A folder that holds zarr containers has its own files recorded as well.
    """
    if path.is_dir():
        arrays = arrays_in(path, parts)
        listings = {array.relative_to(path).as_posix(): _listing(array) for array in arrays or [path]}
        return listings | {file.name: _about(file) for file in (_files_beside(path) if arrays and not parts else [])}
    if not path.exists():  # a record of work inside a volume has no output of its own
        return {}
    return _about(path)


def difference(path: Path, record: Any, is_edited: bool = False) -> str | None:
    """Return how the files of an output differ from their record, in words; None if they do not.

    A file that has another time and the same content does not differ. Files without a record do not count.

    Args:
        path: a file, or a folder.
        record: what `output` put under `written`; anything else, as in manifests of earlier versions, is no record.
        is_edited: users may edit it, and only files that are gone count.
    """
    if not isinstance(record, Mapping) or not record:
        return None
    if "sha256" in record:
        return _difference_of_file(path, record, is_edited)
    for name, about in record.items():
        if not isinstance(about, Mapping):
            continue
        compare = _difference_of_file if "sha256" in about else _difference_of_listing
        if told := compare(path / name, about, is_edited):
            return f"{name}: {told}" if name != "." else told
    return None


def lost(path: Path, manifest: Mapping[str, Any], is_edited: bool = False) -> str | None:
    """Return the `difference` of an output to its manifest, in words; None for volumes.

    Users edit volumes, and zeros that they write may remove chunks.
    """
    return None if "arrays" in manifest else difference(path, manifest.get("written"), is_edited)


def _difference_of_file(path: Path, record: Mapping[str, Any], is_edited: bool) -> str | None:
    if not path.is_file():
        return "is gone"
    about = path.stat()
    is_as_left = (about.st_size, about.st_mtime_ns) == (record.get("size"), record.get("mtime_ns"))
    if is_edited or (is_as_left and about.st_size > _ALWAYS_READ):
        return None
    return None if sha256(path) == record["sha256"] else "holds something else than was written"


def _difference_of_listing(path: Path, record: Mapping[str, Any], is_edited: bool) -> str | None:
    now = _listing(path)
    count, expected = now["files"], record.get("files")
    if now == record or (is_edited and not (isinstance(expected, int) and count < expected)):
        return None
    return f"{count} files, of {expected} that were written" if count != expected else "files of other sizes"


def arrays_in(path: Path, parts: Iterable[str] = ()) -> list[Path]:
    """Return the zarr arrays of a folder, sorted; of some `parts` of it alone, if they are given."""
    return sorted(array for folder in ([path / part for part in parts] or [path]) for array in _arrays(folder))


def _arrays(path: Path) -> list[Path]:
    found = list[Path]()
    for folder, names, files in os.walk(path):
        described = Path(folder) / "zarr.json"
        if ".zarray" in files or ("zarr.json" in files and b'"array"' in described.read_bytes()):
            found.append(Path(folder))
            names.clear()
    return found


def _files_beside(path: Path) -> list[Path]:
    """Return the files in a folder that is no container itself."""
    files = sorted(file for file in path.iterdir() if file.is_file())
    return [] if {file.name for file in files} & METADATA else files


def _about(file: Path) -> dict[str, Any]:
    about = file.stat()
    return {"size": about.st_size, "mtime_ns": about.st_mtime_ns, "sha256": sha256(file)}


def _listing(path: Path) -> dict[str, Any]:
    digest, count = hashlib.sha256(), 0
    for file in files_below(path):
        digest.update(f"{file.relative_to(path)} {file.stat().st_size}\n".encode("utf-8", "surrogateescape"))
        count += 1
    return {"files": count, "listing": digest.hexdigest()[:32]}
