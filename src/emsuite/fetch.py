"""Copies of what a store holds: parallel, resumable, verified, retried; a copy is whole when its manifest is there.

Each object is written beside its place and renamed, so a file is there whole or not at all. Knows nothing of what the
objects are.
"""

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from shutil import disk_usage
from typing import Any, TypeVar

from emsuite import etag
from emsuite.errors import BadInput, RunFailed
from emsuite.files import atomic_path, remove, write_json
from emsuite.output import is_finished, manifest_path, output, read_json, unfinished_path
from emsuite.progress import progress
from emsuite.retry import Stopped, Unreliable, retried
from emsuite.store import Store, StoredObject

WORKERS = 16

Result = TypeVar("Result")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fetched:
    """How many objects there are, how many were transferred now, how many could be verified by their size only."""

    objects: int
    transferred: int
    by_size: int


def fetch_prefix(
    store: Store, prefix: str, folder: Path, *, expected: Mapping[str, Any] | None = None, workers: int = WORKERS
) -> Fetched:
    """Make `folder` a verified copy of all objects below `prefix`, going on where an earlier run stood.

    Files that are there and whole (size, and MD5 where the ETag tells it) are not fetched again; files that the store
    does not have are left alone. The folder counts as unfinished until its manifest is written. `expected` says what
    the source is known to hold: `objects` and `bytes` (counts), `listing` (as in the manifest). Raises BadInput for a
    source that cannot be used and for keys that lead outside the folder, RunFailed where fetching failed.
    """
    folder = Path(folder)
    url = store.url(prefix)
    settings = {"source": url}
    _check_source(folder, url)
    objects = store.list(prefix)
    _check_contents(url, objects, expected)
    paths = local_paths(folder, objects)
    _clear_leftovers(folder)
    state = _compare(store, objects, paths, workers)
    _check_owner(folder, paths, state)
    missing = [stored for stored, whole in zip(objects, state, strict=True) if whole is False]
    if not missing and is_finished(folder, settings):
        return Fetched(len(objects), 0, state.count(None))
    if folder.exists():
        # What is there has just been verified: let output() continue it rather than start anew.
        write_json(unfinished_path(folder), settings)
    with output(folder, settings) as made:
        by_size = fetch_objects(store, missing, folder, what=folder.name, workers=workers)
        by_size += state.count(None)
        made.notes.update(contents=_contents(objects), verified_by_size_only=by_size)
    if by_size:
        log.warning("%s: %d objects have no checksum to go by: verified by size only", folder, by_size)
    return Fetched(len(objects), len(missing), by_size)


def fetch_objects(
    store: Store, objects: Sequence[StoredObject], folder: Path, *, what: str, workers: int = WORKERS
) -> int:
    """Fetch `objects` into `folder`, each under its name, replacing what is there; `what` describes the progress bar.

    Returns how many had no checksum that could be verified. Raises as `fetch_prefix` does; what was fetched stays.
    """
    paths = local_paths(folder, objects)
    total = sum(stored.size for stored in objects)
    _check_room(folder, total)
    stop, lock = threading.Event(), threading.Lock()
    with progress(what=what, total=total, unit="B") as bar, ThreadPoolExecutor(workers) as pool:

        def count(received: int) -> None:
            with lock:
                bar.update(received)

        pairs = zip(objects, paths, strict=True)
        jobs = [pool.submit(_fetch_object, store, stored, path, count, stop) for stored, path in pairs]
        return sum(not verified for verified in _results(jobs, pool, stop))


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


def _fetch_object(
    store: Store, stored: StoredObject, path: Path, count: Callable[[int], None], stop: threading.Event
) -> bool:
    """Fetch one object to `path`; returns whether its checksum could be verified."""

    def once() -> bool:
        received = 0
        try:
            with atomic_path(path) as temporary:
                with open(temporary, "wb") as file:
                    for piece in store.read(stored):
                        if stop.is_set():
                            raise Stopped
                        file.write(piece)
                        received += len(piece)
                        count(len(piece))
                if received != stored.size:
                    raise Unreliable(f"{store.url(stored.key)}: {received} bytes came, {stored.size} were announced")
                good = etag.matches(temporary, stored.etag, _part_size(store, stored))
                if good is False:
                    raise Unreliable(f"{store.url(stored.key)}: what came differs from its checksum {stored.etag}")
                return good is True
        except Unreliable:
            count(-received)
            raise

    try:
        return retried(once, stop=stop)
    except OSError as error:
        raise RunFailed(f"{path}: cannot be written: {error.strerror}") from None


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
        return etag.matches(path, stored.etag, _part_size(store, stored))

    with ThreadPoolExecutor(workers) as pool:
        there = pool.map(whole, objects, paths)
        if not any(path.exists() for path in paths):
            return list(there)
        return list(progress(there, what="verifying what is there", total=len(objects)))


def _part_size(store: Store, stored: StoredObject) -> int | None:
    return store.part_size(stored) if etag.in_parts(stored.etag) else None


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


def _check_owner(folder: Path, paths: Sequence[Path], state: Sequence[bool | None]) -> None:
    """Refuse a folder that holds something else; an earlier copy, by whatever program, is continued."""
    if manifest_path(folder).exists() or unfinished_path(folder).exists():
        return
    differ = [path for path, whole in zip(paths, state, strict=True) if whole is False and path.exists()]
    strangers = {path for path in folder.rglob("*") if not path.is_dir()} - set(paths)
    if differ and strangers:
        raise BadInput(
            f"{folder}: holds something else (the source has no {min(strangers).relative_to(folder)}); "
            "remove it, or choose another place"
        )


def _check_contents(url: str, objects: Sequence[StoredObject], expected: Mapping[str, Any] | None) -> None:
    held = _contents(objects)
    for key, value in (expected or {}).items():
        if held[key] != value:
            raise RunFailed(f"{url}: {key}: the source holds {held[key]}, the data set's file says {value}")


def _check_room(folder: Path, needed: int) -> None:
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = disk_usage(place).free
    if needed > free:
        raise RunFailed(f"{folder}: {needed / 1e9:.3g} GB are to be fetched, but the disk has {free / 1e9:.3g} GB left")


def _clear_leftovers(folder: Path) -> None:
    """Remove the temporary files of runs that were killed."""
    for leftover in folder.rglob(".*.part"):
        leftover.unlink(missing_ok=True)


def _contents(objects: Sequence[StoredObject]) -> dict[str, Any]:
    lines = sorted(f"{stored.name} {stored.size} {stored.etag}\n" for stored in objects)
    listing = hashlib.sha256("".join(lines).encode()).hexdigest()
    return {"objects": len(objects), "bytes": sum(stored.size for stored in objects), "listing": listing}
