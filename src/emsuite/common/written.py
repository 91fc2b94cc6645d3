"""The files of an output as a run left them: recorded in its manifest, compared before the output is used or kept.

A copy that broke off and a program that cleans folders take files away; a chunk that is gone reads as zeros. Somebody
puts another checkpoint in the place of this one. The manifest beside them still says that all is well.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emsuite.common.files import sha256


def written(path: Path) -> dict[str, Any]:
    """Return what a manifest records of the files of its output.

    Args:
        path: a file, or a folder, or nothing.

    Returns:
        of nothing, nothing; of a file, `size`, `mtime_ns` and `sha256`; of a folder, for each zarr array in it, or else
        for the folder itself, under its name: the number of `files`, and a hash of their names and sizes as `listing`.
    """
    if path.is_dir():
        return _listings(path)
    if not path.exists():  # a record of work inside a volume has no output of its own
        return {}
    about = path.stat()
    return {"size": about.st_size, "mtime_ns": about.st_mtime_ns, "sha256": sha256(path)}


def difference(path: Path, record: Any) -> str | None:
    """Return how the files of an output differ from their record, in words; None if they do not.

    A file that has another time and the same content does not differ. Files beside the recorded arrays do not count.

    Args:
        path: a file, or a folder.
        record: what `written` returned; anything else, as in manifests of earlier versions, is no record: None.
    """
    if not isinstance(record, Mapping) or not record:
        return None
    if "sha256" in record:
        if not path.is_file():
            return "is gone"
        about = path.stat()
        if (about.st_size, about.st_mtime_ns) == (record.get("size"), record.get("mtime_ns")):
            return None
        return None if sha256(path) == record["sha256"] else "holds something else than was written"
    now = _listings(path, record)
    for name, listing in record.items():
        if isinstance(listing, Mapping) and now.get(name) != listing:
            count, expected = now.get(name, {}).get("files", 0), listing.get("files")
            told = f"{count} files, of {expected} that were written" if count != expected else "files of other sizes"
            return f"{name}: {told}" if name != "." else told
    return None


def _listings(path: Path, record: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the listing of each array below a folder, or else of the folder; with a record, of what it names."""
    if record is not None:
        return {name: _listing(path / name) for name in record}
    arrays = sorted(_arrays(path))
    return {array.relative_to(path).as_posix(): _listing(array) for array in arrays or [path]}


def _arrays(path: Path) -> list[Path]:
    found = list[Path]()
    for folder, names, files in os.walk(path):
        described = Path(folder) / "zarr.json"
        if ".zarray" in files or ("zarr.json" in files and b'"array"' in described.read_bytes()):
            found.append(Path(folder))
            names.clear()
    return found


def _listing(path: Path) -> dict[str, Any]:
    digest, count = hashlib.sha256(), 0
    for folder, names, files in os.walk(path):
        names.sort()
        for name in sorted(files):
            file = Path(folder) / name
            digest.update(f"{file.relative_to(path)} {file.stat().st_size}\n".encode("utf-8", "surrogateescape"))
            count += 1
    return {"files": count, "listing": digest.hexdigest()[:32]}
