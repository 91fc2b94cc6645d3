"""Whether what lies at a path is what this suite wrote there: a user may have put data of his own in its place.

A record holds short hashes of the names of files, and their sizes: of all files, or of `_MOST` that the hashes choose.
Files may be gone, as where a copy broke off; others must not be there. Metadata do not count, as other stages add to
them; nor do arrays beside those that were written.
"""

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from emsuite.common.files import METADATA, files_below, sha256

_MOST = 4096


def wrote(path: Path, parts: Iterable[str] = (".",)) -> dict[str, Any]:
    """Return a record of what was written at `path`.

    Args:
        path: a file, or a folder, or nothing.
        parts: of a folder, the arrays that count; `.` is all of it.
    """
    if path.is_file():
        return {"sha256": sha256(path)}
    names = sorted(parts)
    files = heapq.nsmallest(_MOST, (entry for name in names for entry in _entries(path, name)))
    return {"parts": names, "files": files}


def is_own(path: Path, record: Any) -> bool:
    """Return whether what lies at `path` was written by the run of a record; True for records of earlier versions."""
    if not isinstance(record, dict) or not path.exists():
        return True
    if "sha256" in record or path.is_file():
        return path.is_file() and sha256(path) == record.get("sha256")
    parts, files = record.get("parts"), record.get("files")
    if not isinstance(parts, list) or not isinstance(files, list):
        return True
    if not parts:
        return False
    known, last = set(files), max(files, default="") if len(files) == _MOST else "~"
    found = [entry for name in parts for entry in _entries(path, str(name))]
    # a folder without any of the parts is another's, unless it is as good as empty
    is_other = not found and bool(known) and any(file.name not in METADATA for file in files_below(path))
    return not is_other and all(entry in known for entry in found if entry <= last)


def _entries(path: Path, part: str) -> Iterator[str]:
    for file in files_below(path / part):
        if file.name not in METADATA:
            name = file.relative_to(path).as_posix()
            yield f"{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:12]} {file.stat().st_size}"
