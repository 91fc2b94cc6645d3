"""Verified copies of the objects in a store: fetched in parallel, retried, and continued after a kill.

A copy is complete once its manifest exists. The module does not know what the objects contain.
"""

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from shutil import disk_usage
from typing import Any, TypeVar

from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.outputs import (
    is_finished,
    lock_path,
    manifest_path,
    output,
    read_manifest,
    unfinished_path,
    unfinished_settings,
)
from emsuite.common.progress import progress
from emsuite.common.provenance import recorded_settings
from emsuite.common.state.lock import owned
from emsuite.common.state.ownership import mark_path, set_aside
from emsuite.download import resumable
from emsuite.download.object_store import FileStore, ObjectStore, StoredObject
from emsuite.download.resumable import PartialFile, Task, Transfer, matches_checksum
from emsuite.download.retry import Stopped

WORKERS = 16

Selection = Callable[[list[StoredObject]], list[StoredObject]]
Result = TypeVar("Result")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FetchResult:
    """The outcome of `fetch_prefix`."""

    stored: tuple[StoredObject, ...]
    """The objects of the copy, all verified."""
    transferred: int
    """How many of them this run fetched."""
    by_size: int
    """How many of them have no usable checksum, so that only their size was verified."""

    @property
    def objects(self) -> int:
        """The number of objects of the copy."""
        return len(self.stored)


def fetch_prefix(
    store: ObjectStore,
    prefix: str,
    folder: Path,
    *,
    choose: Selection | None = None,
    expected: Mapping[str, Any] | None = None,
    workers: int = WORKERS,
) -> FetchResult:
    """Make `folder` a verified copy of the objects below `prefix`.

    A stopped run is continued. A file that is complete (same size, and same MD5 if the ETag has one) is not fetched
    again; of a large object only the missing ranges are fetched. Other files in the folder are left alone. The folder
    counts as unfinished until its manifest is written; the manifest describes the objects of the last run.

    Args:
        store: the store to copy from.
        prefix: the folder in the store.
        folder: the folder to copy to.
        choose: takes the listing and returns the objects to fetch. The default is all of them.
        expected: `objects`, `bytes` and `listing` of the source, as in the manifest's `contents`; all optional.
        workers: the number of threads.

    Raises:
        BadInput: the source cannot be used, a key leads outside the folder, or the folder holds something else.
        RunFailed: an object could not be fetched, or the source differs from `expected`.
    """
    with owned(lock_path(Path(folder)), Path(folder)):
        return _fetch_prefix(store, prefix, Path(folder), choose, expected, workers)


def _fetch_prefix(
    store: ObjectStore,
    prefix: str,
    folder: Path,
    choose: Selection | None,
    expected: Mapping[str, Any] | None,
    workers: int,
) -> FetchResult:
    url = store.url(prefix)
    settings = {"source": url}
    _check_target(folder, url)
    listed = store.list(prefix)
    objects = listed if choose is None else choose(listed)
    if not objects:
        raise BadInput(f"{url}: holds {len(listed)} objects, but none of those asked for")
    contents = contents_of(objects)
    check_contents(url, contents, expected)
    paths = local_paths(folder, objects)
    related = _clear_leftovers(folder, listed)
    states = _compare(store, objects, paths, workers)
    _check_owner(folder, paths, states, related)
    missing = [stored for stored, state in zip(objects, states, strict=True) if state is False]
    if not missing and is_finished(folder, settings) and read_manifest(folder).get("contents") == contents:
        return FetchResult(tuple(objects), 0, states.count(None))
    _keep_changed(folder, paths, states)
    with output(folder, settings, keep=True) as copy:  # its files were just verified
        by_size = fetch_objects(store, missing, folder, what=folder.name, workers=workers)
        by_size += states.count(None)
        from emsuite.io.fingerprint import seen_arrays  # NumPy, which --help need not wait for

        copy.notes.update(contents=contents, verified_by_size_only=by_size, arrays=seen_arrays(folder))
    if by_size:
        log.warning("%s: %d objects have no checksum to go by: verified by size only", folder, by_size)
    return FetchResult(tuple(objects), len(missing), by_size)


def fetch_objects(
    store: FileStore, objects: Sequence[StoredObject], folder: Path, *, what: str, workers: int = WORKERS
) -> int:
    """Fetch `objects` into `folder`, each under its name; replace existing files.

    Args:
        store: the store to fetch from.
        objects: the objects to fetch.
        folder: the folder to write to.
        what: the label of the progress bar.
        workers: the number of threads.

    Returns:
        The number of objects without a usable checksum: only their size was verified.

    Raises:
        BadInput, RunFailed: as `fetch_prefix`. Files that are complete stay.
    """
    paths = local_paths(folder, objects)
    parts = {
        stored: PartialFile(path, stored)
        for stored, path in zip(objects, paths, strict=True)
        if stored.size > resumable.LARGE_OBJECT_BYTES and stored.has_ranges
    }
    total = sum(stored.size for stored in objects)
    done = sum(part.bytes_done() for part in parts.values())
    _check_disk_space(folder, total - done)
    stop, lock = threading.Event(), threading.Lock()
    with progress(what=what, total=total, done=done, unit="B") as bar, ThreadPoolExecutor(workers) as pool:

        def count(received: int) -> None:
            with lock:
                bar.update(received)

        transfer = Transfer(store, count, stop)
        tasks: list[Task] = []
        for stored, path in zip(objects, paths, strict=True):
            tasks += transfer.in_ranges(stored, parts[stored]) if stored in parts else transfer.at_once(stored, path)
        jobs = [pool.submit(task) for task in tasks]
        return sum(has_checksum is False for has_checksum in _results(jobs, pool, stop))


def local_paths(folder: Path, objects: Sequence[StoredObject]) -> list[Path]:
    """Return the path of each object; raise BadInput if a key leads outside `folder`, by its name or by a link."""
    folders: set[PurePosixPath] = set()
    for stored in objects:
        parts = stored.name.split("/")
        if any(part in ("", ".", "..") or "\\" in part or not part.isprintable() for part in parts):
            raise BadInput(f"key {stored.key!r} is no path inside {folder}; nothing was fetched")
        folders.update(PurePosixPath(stored.name).parents)
    root = folder.resolve()
    for subfolder in folders:
        if not (folder / subfolder).resolve().is_relative_to(root):
            raise BadInput(f"{folder / subfolder}: leads outside {folder}; nothing was fetched")
    for stored in objects:
        if PurePosixPath(stored.name) in folders:
            raise BadInput(f"key {stored.key!r} is a file and a folder at once; nothing was fetched")
    return [folder / stored.name for stored in objects]


def _results(jobs: Sequence["Future[Result]"], pool: ThreadPoolExecutor, stop: threading.Event) -> list[Result]:
    """Return the results of the jobs; the first job that fails ends all others."""
    try:
        wait(jobs, return_when=FIRST_EXCEPTION)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
    for job in jobs:
        if not job.cancelled() and not isinstance(job.exception(), Stopped | None):
            job.result()
    return [job.result() for job in jobs]


def _compare(
    store: ObjectStore, objects: Sequence[StoredObject], paths: Sequence[Path], workers: int
) -> list[bool | None]:
    """Return per object: True if its file is complete, None if only the size could be verified, else False."""

    def compare(stored: StoredObject, path: Path) -> bool | None:
        if path.is_symlink() or not path.is_file() or path.stat().st_size != stored.size:
            return False
        return matches_checksum(store, stored, path)

    with ThreadPoolExecutor(workers) as pool:
        states = pool.map(compare, objects, paths)
        if not any(path.exists() for path in paths):
            return list(states)
        return list(progress(states, what="verifying existing files", total=len(objects)))


def _check_target(folder: Path, url: str) -> None:
    if folder.resolve().as_uri() == url:
        raise BadInput(f"{folder}: is the source itself; expected another folder to copy to")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise BadInput(f"{folder}: is a link or a file; expected a folder, or nothing, to copy to")
    earlier, unfinished = read_manifest(folder), unfinished_settings(folder)
    if unfinished is not None and unfinished != {"source": url} and folder.exists():
        log.warning("%s: is an unfinished copy of another source; it is kept in %s", folder, set_aside(folder))
    elif folder.exists() and earlier and recorded_settings(earlier) != {"source": url}:
        settings = recorded_settings(earlier)
        source = settings.get("source", "other settings") if isinstance(settings, dict) else "other settings"
        raise BadInput(f"{folder}: was made from {source}, not from {url}; remove it, or choose another folder")


def _check_owner(folder: Path, paths: Sequence[Path], states: Sequence[bool | None], related: Set[Path]) -> None:
    """Raise BadInput if the folder holds something else; an earlier copy, also by another program, is continued."""
    if any(path.exists() for path in (manifest_path(folder), unfinished_path(folder), mark_path(folder))):
        return
    differ = [path for path, state in zip(paths, states, strict=True) if state is False and path.exists()]
    unrelated = {path for path in folder.rglob("*") if not path.is_dir()} - related
    if differ and unrelated:
        raise BadInput(
            f"{folder}: holds something else (the source has no {min(unrelated).relative_to(folder)}); "
            "remove it, or choose another folder"
        )


def _keep_changed(folder: Path, paths: Sequence[Path], states: Sequence[bool | None]) -> None:
    """Move files that differ from the source aside, with a warning: they may have been edited."""
    differ = [path for path, state in zip(paths, states, strict=True) if state is False and path.exists()]
    if differ:
        told = "%s: %d files differ from the source and are fetched again; what was there is in %s"
        log.warning(told, folder, len(differ), set_aside(folder, differ))


def check_contents(url: str, contents: Mapping[str, Any], expected: Mapping[str, Any] | None) -> None:
    """Raise RunFailed if the contents of a source are not those that its data set records."""
    for key, value in (expected or {}).items():
        if contents[key] != value:
            raise RunFailed(f"{url}: {key}: the source holds {contents[key]}, the data set's file says {value}")


def _check_disk_space(folder: Path, needed: int) -> None:
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = disk_usage(existing).free
    if needed > free:
        raise RunFailed(f"{folder}: {needed / 1e9:.3g} GB are to be fetched, but the disk has {free / 1e9:.3g} GB left")


def _clear_leftovers(folder: Path, listed: Sequence[StoredObject]) -> set[Path]:
    """Remove the temporary files of killed runs, but keep partial files of large objects that can be continued.

    Returns the paths that belong to the source: its objects, and their partial files.
    """
    related = {folder / stored.name for stored in listed}
    for stored in listed:
        part = PartialFile(folder / stored.name, stored)
        if stored.size > resumable.LARGE_OBJECT_BYTES and part.can_continue():
            related |= {part.bytes_path, part.ranges_path}
    for pattern in (".*.part", *resumable.PARTIAL_FILE_PATTERNS):
        for leftover in folder.rglob(pattern):
            if leftover not in related:
                leftover.unlink(missing_ok=True)
    return related


def contents_of(objects: Sequence[StoredObject]) -> dict[str, Any]:
    """Return what a manifest records of objects: their number, their bytes, and a hash of names, sizes and ETags."""
    lines = sorted(f"{stored.name} {stored.size} {stored.etag}\n" for stored in objects)
    listing = hashlib.sha256("".join(lines).encode()).hexdigest()
    return {"objects": len(objects), "bytes": sum(stored.size for stored in objects), "listing": listing}
