"""Whether what lies at a path is what this suite wrote there: a user may have put data of his own in its place.

A record holds short hashes of the names of files, and their sizes: of all files, or of `_MOST` that the hashes choose.
Files may be gone, as where a copy broke off; others must not be there, nor files beside the arrays that were written.
Metadata do not count, as other stages add to them. What is newer than the record may have been edited in place, with
sizes that stay, and is not removed. A folder that is still being written bears a mark instead.

    prediction.zarr/.emsuite    while a run writes it: {"parts": ["affs"]}, the names in the folder that are the run's
    prediction.zarr.before1     what was newer than its record when a run wrote prediction.zarr again
"""

import hashlib
import heapq
import logging
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from emsuite.common.documents import read_json
from emsuite.common.files import GOING, METADATA, files_below, sha256, write_json

MARK = ".emsuite"
_MOST = 4096
_log = logging.getLogger(__name__)
_HALF_WRITTEN = (*(f".{name}.????????.part" for name in (*METADATA, MARK)), "zarr.*.partial", ".z*.partial")
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


def is_newer(path: Path, record: Any, written_at: Path) -> bool:
    """Return whether a file of what lies at `path` is newer than its record: edited, or copied.

    Args:
        path: a file, or a folder.
        record: see `wrote`; False for those of single files, as they hold the content, and without a record.
        written_at: the file that holds the record, written after all others.
    """
    if not isinstance(record, dict) or "sha256" in record or not written_at.exists():
        return False
    parts = map(str, record.get("parts", ["."]))
    files = [path] if path.is_file() else (file for name in parts for file in _counted(path / name))
    return max((file.stat().st_mtime_ns for file in files), default=0) > written_at.stat().st_mtime_ns


def set_aside(path: Path, names: Iterable[Path] | None = None) -> Path:
    """Move a file or folder, or some files below it, to a name that is free, `NAME.before1`; return this name.

    Args:
        path: The file or folder.
        names: The files below it; None: all of it.
    """
    free = (path.with_name(f"{path.name}.before{number}") for number in count(1))
    aside = next(name for name in free if not name.exists())
    for file in [path] if names is None else names:
        kept = aside / file.relative_to(path)
        kept.parent.mkdir(parents=True, exist_ok=True)
        file.rename(kept)
    return aside


def keep_edited(path: Path, record: Any, written_at: Path) -> None:
    """Set what lies at `path` aside, with a warning, if it is newer than its record: it may have been edited."""
    if path.exists() and is_newer(path, record, written_at):
        aside = set_aside(path)
        _log.warning("%s: is newer than what this suite wrote there, as if edited; it is kept in %s", path, aside)


def mark_path(path: Path) -> Path:
    """Return the path of the file that tells what the suite wrote at a path, also when its manifest is gone."""
    return path.parent / f".{path.name}.emsuite"


def note_file(path: Path, file: Path) -> None:
    """Record that a whole file becomes the output at `path`: killed behind the rename, a run finds its own."""
    write_json(mark_path(path), wrote(file))


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
        return "." if path.is_file() or any(not _is_bare(file) for file in files_below(path)) else None
    hidden = (".", "done_")  # the state of runs
    names = (entry.name for entry in sorted(path.iterdir()) if entry.name not in METADATA)
    return next((name for name in names if parts and name not in parts and not name.startswith(hidden)), None)


def _is_bare(file: Path) -> bool:
    """Return whether a file holds no data: metadata, or what a kill left of metadata and of a mark, as `zarr` too."""
    return file.name in METADATA or any(map(file.match, _HALF_WRITTEN))


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
        is_going = any(part.endswith(GOING) for part in file.relative_to(path).parts)
        if not is_of_group and not is_going and inside.isdisjoint(file.parents):
            return file.relative_to(path).as_posix()
    return None


def top_names(record: Any) -> set[str]:
    """Return the names in the folder that a record names; none for all."""
    parts = record.get("parts") if isinstance(record, dict) else None
    return {str(part).split("/")[0] for part in parts or ()} - {"."}


def is_one_gone(path: Path, record: Any) -> bool:
    """Return whether the folder of a record lacks a file or folder that lay in it; False for records of its parts."""
    tops = record.get("tops") if isinstance(record, dict) else None
    names = [str(name) for name in tops if name not in _OF_OTHERS] if isinstance(tops, list) else []
    return not all((path / name).exists() for name in names)


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
    for file in _counted(path / part):
        name = file.relative_to(path).as_posix()
        yield f"{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:12]} {file.stat().st_size}"


def _counted(folder: Path) -> Iterator[Path]:
    return (file for file in files_below(folder) if file.name not in _OF_OTHERS)
