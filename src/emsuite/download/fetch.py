"""Copies of what a store holds: parallel, resumable, verified, retried; a copy is whole when its manifest is there.

Knows nothing of what the objects are.
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
from emsuite.common.files import remove, write_json
from emsuite.common.outputs import is_finished, manifest_path, output, read_json, unfinished_path
from emsuite.common.progress import progress
from emsuite.download import resumable as partial
from emsuite.download.object_store import Store, StoredObject
from emsuite.download.resumable import Partial, Task, Transfer, verified
from emsuite.download.retry import Stopped

WORKERS = 16

Choice = Callable[[list[StoredObject]], list[StoredObject]]
Result = TypeVar("Result")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fetched:
    """What is there and verified, how many were transferred now, how many could be verified by their size only."""

    stored: tuple[StoredObject, ...]
    transferred: int
    by_size: int

    @property
    def objects(self) -> int:
        """How many objects are there."""
        return len(self.stored)


def fetch_prefix(
    store: Store,
    prefix: str,
    folder: Path,
    *,
    choose: Choice | None = None,
    expected: Mapping[str, Any] | None = None,
    workers: int = WORKERS,
) -> Fetched:
    """Make `folder` a verified copy of all objects below `prefix`, or of those that `choose` takes from the listing.

    Goes on where an earlier run stood: files that are there and whole (size, and MD5 where the ETag tells it) are not
    fetched again, of large objects only the missing ranges are; files that were not chosen or that the store does not
    have are left alone. The folder counts as unfinished until its manifest is written, which tells of the last choice.
    `expected` says what is known to be there: `objects`, `bytes` (counts), `listing` (as in the manifest). Raises
    BadInput for a source that cannot be used and keys that lead outside the folder, RunFailed where fetching failed.
    """
    folder = Path(folder)
    url = store.url(prefix)
    settings = {"source": url}
    _check_source(folder, url)
    listed = store.list(prefix)
    objects = listed if choose is None else choose(listed)
    if not objects:
        raise BadInput(f"{url}: holds {len(listed)} objects, but none of those asked for")
    contents = _contents(objects)
    _check_contents(url, contents, expected)
    paths = local_paths(folder, objects)
    known = _clear_leftovers(folder, listed)
    state = _compare(store, objects, paths, workers)
    _check_owner(folder, paths, state, known)
    missing = [stored for stored, whole in zip(objects, state, strict=True) if whole is False]
    if not missing and is_finished(folder, settings) and read_json(manifest_path(folder)).get("contents") == contents:
        return Fetched(tuple(objects), 0, state.count(None))
    if folder.exists():
        # What is there has just been verified: let output() continue it rather than start anew.
        write_json(unfinished_path(folder), settings)
    with output(folder, settings) as made:
        by_size = fetch_objects(store, missing, folder, what=folder.name, workers=workers)
        by_size += state.count(None)
        made.notes.update(contents=contents, verified_by_size_only=by_size)
    if by_size:
        log.warning("%s: %d objects have no checksum to go by: verified by size only", folder, by_size)
    return Fetched(tuple(objects), len(missing), by_size)


def fetch_objects(
    store: Store, objects: Sequence[StoredObject], folder: Path, *, what: str, workers: int = WORKERS
) -> int:
    """Fetch `objects` into `folder`, each under its name, replacing what is there; `what` describes the progress bar.

    Returns how many had no checksum that could be verified. Raises as `fetch_prefix` does; what was fetched stays.
    """
    paths = local_paths(folder, objects)
    parts = {
        stored: Partial(path, stored)
        for stored, path in zip(objects, paths, strict=True)
        if stored.size > partial.LARGE
    }
    total = sum(stored.size for stored in objects)
    there = sum(part.bytes_there() for part in parts.values())
    _check_room(folder, total - there)
    stop, lock = threading.Event(), threading.Lock()
    with progress(what=what, total=total, done=there, unit="B") as bar, ThreadPoolExecutor(workers) as pool:

        def count(received: int) -> None:
            with lock:
                bar.update(received)

        transfer = Transfer(store, count, stop)
        tasks: list[Task] = []
        for stored, path in zip(objects, paths, strict=True):
            tasks += transfer.in_ranges(stored, parts[stored]) if stored in parts else transfer.whole(stored, path)
        jobs = [pool.submit(task) for task in tasks]
        return sum(verified is False for verified in _results(jobs, pool, stop))


def local_paths(folder: Path, objects: Sequence[StoredObject]) -> list[Path]:
    """Where each object belongs; raises BadInput for a key that would lead outside `folder`, also by a link."""
    folders: set[PurePosixPath] = set()
    for stored in objects:
        parts = stored.name.split("/")
        if any(part in ("", ".", "..") or "\\" in part or not part.isprintable() for part in parts):
            raise BadInput(f"key {stored.key!r} is no path inside {folder}; nothing was fetched")
        folders.update(PurePosixPath(stored.name).parents)
    root = folder.resolve()
    for place in folders:
        if not (folder / place).resolve().is_relative_to(root):
            raise BadInput(f"{folder / place}: leads outside {folder}; nothing was fetched")
    for stored in objects:
        if PurePosixPath(stored.name) in folders:
            raise BadInput(f"key {stored.key!r} is a file and a folder at once; nothing was fetched")
    return [folder / stored.name for stored in objects]


def _results(jobs: Sequence["Future[Result]"], pool: ThreadPoolExecutor, stop: threading.Event) -> list[Result]:
    """The jobs' results; the first that fails ends all the others."""
    try:
        wait(jobs, return_when=FIRST_EXCEPTION)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
    for job in jobs:
        if not job.cancelled() and not isinstance(job.exception(), Stopped | None):
            job.result()
    return [job.result() for job in jobs]


def _compare(store: Store, objects: Sequence[StoredObject], paths: Sequence[Path], workers: int) -> list[bool | None]:
    """Per object: True where the file is there and whole, None where its size alone could be verified, else False."""

    def whole(stored: StoredObject, path: Path) -> bool | None:
        if path.is_symlink() or not path.is_file() or path.stat().st_size != stored.size:
            return False
        return verified(store, stored, path)

    with ThreadPoolExecutor(workers) as pool:
        there = pool.map(whole, objects, paths)
        if not any(path.exists() for path in paths):
            return list(there)
        return list(progress(there, what="verifying what is there", total=len(objects)))


def _check_source(folder: Path, url: str) -> None:
    if folder.resolve().as_uri() == url:
        raise BadInput(f"{folder}: is the source itself; expected another folder to copy to")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise BadInput(f"{folder}: is a link or a file; expected a folder, or nothing, to copy to")
    manifest, unfinished = read_json(manifest_path(folder)), read_json(unfinished_path(folder))
    if unfinished is not None and unfinished != {"source": url}:
        remove(folder)  # part of a copy of something else is of no use
    elif folder.exists() and manifest is not None and manifest["settings"] != {"source": url}:
        source = manifest["settings"].get("source", "other settings")
        raise BadInput(f"{folder}: was made from {source}, not from {url}; remove it, or choose another place")


def _check_owner(folder: Path, paths: Sequence[Path], state: Sequence[bool | None], known: Set[Path]) -> None:
    """Refuse a folder that holds something else; an earlier copy, by whatever program, is continued."""
    if manifest_path(folder).exists() or unfinished_path(folder).exists():
        return
    differ = [path for path, whole in zip(paths, state, strict=True) if whole is False and path.exists()]
    strangers = {path for path in folder.rglob("*") if not path.is_dir()} - known
    if differ and strangers:
        raise BadInput(
            f"{folder}: holds something else (the source has no {min(strangers).relative_to(folder)}); "
            "remove it, or choose another place"
        )


def _check_contents(url: str, held: Mapping[str, Any], expected: Mapping[str, Any] | None) -> None:
    for key, value in (expected or {}).items():
        if held[key] != value:
            raise RunFailed(f"{url}: {key}: the source holds {held[key]}, the data set's file says {value}")


def _check_room(folder: Path, needed: int) -> None:
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = disk_usage(place).free
    if needed > free:
        raise RunFailed(f"{folder}: {needed / 1e9:.3g} GB are to be fetched, but the disk has {free / 1e9:.3g} GB left")


def _clear_leftovers(folder: Path, listed: Sequence[StoredObject]) -> set[Path]:
    """Remove the temporary files of runs that were killed, but for parts of large objects that can be continued.

    Returns all paths that have to do with what the source holds: its objects' own, and those of their parts.
    """
    known = {folder / stored.name for stored in listed}
    for stored in listed:
        part = Partial(folder / stored.name, stored)
        if stored.size > partial.LARGE and part.is_there():
            known |= {part.part, part.record}
    for pattern in (".*.part", *partial.NAMES):
        for leftover in folder.rglob(pattern):
            if leftover not in known:
                leftover.unlink(missing_ok=True)
    return known


def _contents(objects: Sequence[StoredObject]) -> dict[str, Any]:
    lines = sorted(f"{stored.name} {stored.size} {stored.etag}\n" for stored in objects)
    listing = hashlib.sha256("".join(lines).encode()).hexdigest()
    return {"objects": len(objects), "bytes": sum(stored.size for stored in objects), "listing": listing}
