"""Whether what lies at a path is what this suite wrote there: a user may have put data of his own in its place.

A record holds short hashes of the names of files, and their sizes: of all files, or of `_MOST` that the hashes choose.
Files may be gone, as where a copy broke off; others must not be there, nor files beside the arrays that were written.
Metadata do not count, as other stages add to them. A folder that is still being written bears a mark instead.

    prediction.zarr/.emsuite    while a run writes it: {"parts": ["affs"]}, the names in the folder that are the run's
"""

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from emsuite.common.documents import read_json
from emsuite.common.files import METADATA, files_below, sha256, write_json

MARK = ".emsuite"
_MOST = 4096
_OF_OTHERS = METADATA | {MARK, ".snakemake_timestamp"}


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
    tops = sorted(entry.name for entry in path.iterdir()) if "." in names else []
    return {"parts": names, "files": files} | ({"tops": tops} if 0 < len(tops) <= _MOST else {})


def mark(folder: Path, parts: Iterable[str] = ()) -> None:
    """Mark a folder as written by a run of this suite, which is created if it is missing.

    Args:
        folder: Where the mark stays until `unmark`.
        parts: the names in the folder that are the run's; none: all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / MARK, {"parts": sorted({*parts, *(marked_parts(folder) or ())})})


def unmark(folder: Path) -> None:
    """Remove the mark of a folder, if it has one."""
    if folder.is_dir():
        (folder / MARK).unlink(missing_ok=True)


def marked_parts(folder: Path) -> list[str] | None:
    """Return the parts that the mark of a folder names; None without a mark."""
    content = read_json(folder / MARK)
    parts = content.get("parts") if isinstance(content, dict) else None
    return [str(part) for part in parts] if isinstance(parts, list) else None


def foreign_while_unfinished(path: Path) -> str | None:
    """Return the first thing in a folder without a whole output that no run wrote, `.` for all of it; None if none."""
    if not path.exists():
        return None
    parts = marked_parts(path) if path.is_dir() else None
    if parts is None:
        return "." if path.is_file() or any(file.name not in METADATA for file in files_below(path)) else None
    hidden = (".", "done_")  # the state of runs
    names = (entry.name for entry in sorted(path.iterdir()) if entry.name not in METADATA)
    return next((name for name in names if parts and name not in parts and not name.startswith(hidden)), None)


def foreign_beside(path: Path, record: Any, others: Iterable[str] = ()) -> str | None:
    """Return the first file in a folder beside the arrays of its record, relative to it; None if there is none.

    Args:
        path: the folder.
        record: see `wrote`; None for records of earlier versions, which say nothing.
        others: further folders in it that this suite wrote, as the coarser levels of its arrays.
    """
    parts = record.get("parts") if isinstance(record, dict) else None
    if not parts or not path.is_dir():
        return None
    known = {path / str(part) for part in parts}
    if "." in parts:
        tops = record.get("tops")
        names = sorted(entry.name for entry in path.iterdir() if entry.name not in _OF_OTHERS)
        return next((name for name in names if isinstance(tops, list) and name not in tops), None)
    groups = {folder for part in known for folder in part.parents}
    inside = known | {path / name for name in others}
    for file in files_below(path):
        is_of_group = file.name in _OF_OTHERS and file.parent in groups
        if not is_of_group and inside.isdisjoint(file.parents):
            return file.relative_to(path).as_posix()
    return None


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
        if file.name not in _OF_OTHERS:
            name = file.relative_to(path).as_posix()
            yield f"{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:12]} {file.stat().st_size}"
