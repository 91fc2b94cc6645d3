"""Verified copies of single files, HDF5 volumes: fetched, retried and continued after a kill as whole folders are.

sample_A_20160501.hdf                        complete and verified, or absent
sample_A_20160501.hdf.manifest.json          where it comes from
.sample_A_20160501.hdf.<mark>.bytes, .ranges what has arrived of it, see `emsuite.download.resumable`
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from emsuite.common.errors import BadInput
from emsuite.common.files import sha256 as sha256_of
from emsuite.common.outputs import lock_path, manifest_path, output, read_manifest
from emsuite.common.state.lock import owned
from emsuite.common.state.ownership import mark_path, set_aside
from emsuite.download.fetch import WORKERS, FetchResult, check_contents, contents_of, fetch_objects
from emsuite.download.object_store import FileStore, StoredObject
from emsuite.download.resumable import PARTIAL_FILE_PATTERNS, PartialFile, matches_checksum

log = logging.getLogger(__name__)


def fetch_file(
    store: FileStore,
    key: str,
    path: Path,
    *,
    sha256: str = "",
    expected: dict[str, Any] | None = None,
    workers: int = WORKERS,
) -> FetchResult:
    """Make `path` a verified copy of one object.

    A stopped run is continued. A file that is complete is kept, wherever it comes from; if its SHA-256 is known, the
    store is not even asked. A file that differs from its manifest is moved aside, as `NAME.before1`.

    Args:
        store: the store to copy from.
        key: the object.
        path: the file to write.
        sha256: that of the file, in small letters; without it the checksum of the store counts, or the size alone.
        expected: as for `fetch_prefix`.
        workers: the number of threads.

    Raises:
        BadInput: the source cannot be used, or `path` is something else.
        RunFailed: the object could not be fetched, or is not the recorded one.
    """
    path = Path(path)
    with owned(lock_path(path), path):
        _check_target(path)
        if sha256 and path.exists() and "contents" in read_manifest(path) and sha256_of(path) == sha256:
            return FetchResult((StoredObject(key, path.name, path.stat().st_size, "", sha256),), 0, 0)
        stored = replace(store.describe(key), name=path.name, sha256=sha256)
        return _fetch_file(store, stored, path, expected, workers)


def _fetch_file(
    store: FileStore, stored: StoredObject, path: Path, expected: dict[str, Any] | None, workers: int
) -> FetchResult:
    contents = contents_of([stored])
    check_contents(store.url(stored.key), contents, expected)
    _clear_leftovers(path, stored)
    state = _state(store, stored, path)
    if state is not False and read_manifest(path).get("contents") == contents:
        return FetchResult((stored,), 0, int(state is None))
    if state is False and path.exists():
        _move_aside(path, store.url(stored.key))
    with output(path, {"source": store.url(stored.key)}, keep=True) as copy:
        missing = [stored] if state is False else []
        by_size = fetch_objects(store, missing, path.parent, what=path.name, workers=workers) + (state is None)
        from emsuite.io.fingerprint import seen_arrays  # NumPy, which --help need not wait for

        copy.notes.update(contents=contents, verified_by_size_only=by_size, arrays=seen_arrays(path))
    if by_size:
        log.warning("%s: has no checksum to go by: verified by size only", path)
    return FetchResult((stored,), len(missing), by_size)


def _check_target(path: Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise BadInput(f"{path}: is a link or a folder; expected a file, or nothing, to copy to")


def _state(store: FileStore, stored: StoredObject, path: Path) -> bool | None:
    """Return True if the file is complete, None if only its size could be verified, else False."""
    return matches_checksum(store, stored, path) if path.exists() and path.stat().st_size == stored.size else False


def _move_aside(path: Path, url: str) -> None:
    """Move a file that differs from the source aside if it was fetched once: it may have been edited."""
    if not any(record.exists() for record in (manifest_path(path), mark_path(path))):
        raise BadInput(f"{path}: holds something else than {url}; remove it, or choose another folder")
    log.warning("%s: differs from the source and is fetched again; what was there is in %s", path, set_aside(path))


def _clear_leftovers(path: Path, stored: StoredObject) -> None:
    """Remove what killed runs left beside the file, but keep what can be continued."""
    part = PartialFile(path, stored)
    kept = {part.bytes_path, part.ranges_path} if stored.has_ranges and part.can_continue() else set()
    for pattern in (".*.part", *PARTIAL_FILE_PATTERNS):
        for leftover in path.parent.glob(pattern):
            if leftover.name.startswith(f".{path.name}.") and leftover not in kept:
                leftover.unlink(missing_ok=True)
