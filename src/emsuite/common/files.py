"""Atomic files: written beside their final name, flushed and renamed, so that no file is ever half-written."""

import contextlib
import csv
import errno
import fcntl
import glob
import hashlib
import io
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

METADATA = frozenset({"zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata", "attributes.json"})
"""Names of files of a volume that hold no voxels; stages add to those of others."""
GOING = ".emsuite.removed"
"""The end of the name of a folder while it is removed."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Within the block, name `path` in errors of the file system that name no file, such as that of a full disk.

    HDF5 tells of a full disk in words alone, NumPy in an OSError without a number: `4096 requested and 96 written`.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        full = os.strerror(errno.ENOSPC)
        is_full = re.search(rf"{full}|requested and \d+ written", str(error))
        if is_full and getattr(error, "strerror", None) != full:
            raise OSError(errno.ENOSPC, full, str(path)) from error
        if isinstance(error, OSError) and error.filename is None:
            if error.errno is not None:
                error.filename = str(path)
            elif str(error):  # of h5py or Pillow: a name would hide its text
                raise OSError(errno.EIO, str(error), str(path)) from error
        raise


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it is renamed to `path` if the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with naming(path):
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except OSError as error:
        if error.filename == str(temporary):  # a name that nobody knows
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(*paths: Path) -> None:
    """Remove what killed runs left of `atomic_path` beside `paths`. The caller holds the lock of these files."""
    for path in paths:
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}.part"):
            leftover.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically; keys keep their order."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def files_below(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder, in an order that depends on their names alone."""
    for here, names, files in os.walk(folder):
        names.sort()
        for name in sorted(files):
            yield Path(here) / name


def has_content(path: Path) -> bool:
    """Return whether a file exists and is not empty, as files are that were not flushed when the machine went down."""
    try:
        return path.stat().st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False


def file_of(path: Path) -> Path | None:
    """Return the file at a path, or the one that the path leads into, as that of an array of HDF5; None if neither."""
    return next((part for part in (path, *path.parents) if part.is_file()), None)


def is_there(path: Path) -> bool:
    """Return whether a path exists, or leads into a file."""
    return path.exists() or file_of(path) is not None


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(path: Path) -> None:
    """Remove a file, or a folder with its content, all at once; do nothing if there is neither.

    A folder has another name while its content goes. Where a kill stops this, no part of it is left under its own
    name, and the next removal of the same path takes the rest.
    """
    going = path.with_name(f".{path.name}{GOING}")
    try:
        if going.is_dir():
            shutil.rmtree(going)
        if path.is_dir() and not path.is_symlink():
            path.rename(going)
            shutil.rmtree(going)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:  # `rmtree` names what it cannot remove without the folders above
        raise OSError(error.errno, f"cannot be removed: {error.strerror}", str(path)) from None


def remove_parts_below(folder: Path) -> None:
    """Remove what killed runs left below a folder: files half written, by zarr and `atomic_path`, folders half removed.

    The caller holds the lock of the folder.
    """
    for going in list(folder.rglob(f".*{GOING}")):
        shutil.rmtree(going, ignore_errors=True)
    for pattern in ("*.partial", ".*.part"):
        for leftover in folder.rglob(pattern):
            leftover.unlink()


def write_table(path: Path, names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file atomically: a header of `names`, then one line per row."""
    text = io.StringIO()
    table = csv.DictWriter(text, names, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(path, text.getvalue())


def try_flock(file: int, kind: int, wait: float = 0) -> bool | None:
    """Lock a file after `wait` seconds; return False if another process has locked it, None if locks do not exist."""
    time.sleep(wait)
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def shows_locks_everywhere(folder: Path) -> bool:
    """Return whether all machines see the locks (flock) of files in `folder`, as the mount's options say."""
    device = os.stat(folder).st_dev
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            mount, _, system = line.partition(" - ")
            if mount.split()[2] == f"{os.major(device)}:{os.minor(device)}":
                kind, _, options = system.split(" ", 2)
                if kind in ("nfs", "nfs4"):
                    return not {"local_lock=all", "local_lock=flock", "nolock"} & set(options.split(","))
                return kind in ("ceph", "gpfs") or (kind == "lustre" and "flock" in options.split(","))
    return False
