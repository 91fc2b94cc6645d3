"""Downloads of single objects: retried, verified, and continued after a kill.

A small object is fetched at once, into a temporary file. A large object is fetched in byte ranges, by several workers,
into a partial file beside the final one:

    data                         the file, once it is complete and verified
    .data.<mark>.bytes           its bytes: a sparse file, as long as the whole object from the start
    .data.<mark>.ranges          one byte per range: 1 if the range is on the disk

The mark is a hash of the object's key, size and ETag and of the size of a range, so that the partial file of another
object is never continued. A file gets its final name after its size and checksum are verified.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from emsuite.common.errors import RunFailed
from emsuite.common.files import atomic_path, sha256
from emsuite.download.etags import is_multipart, matches_etag
from emsuite.download.object_store import FileStore, StoredObject
from emsuite.download.retry import Stopped, TransientError, with_retries

LARGE_OBJECT_BYTES = 32 << 20
"""Larger objects are fetched in ranges."""
RANGE_BYTES = 16 << 20
"""The size of a range: a killed run loses at most this much per connection."""
PARTIAL_FILE_PATTERNS = (".*.bytes", ".*.ranges")
"""Names of all partial files."""
_DONE = b"\1"

ByteRange = tuple[int, int]
"""The first byte, and the byte behind the last one."""
Task = Callable[[], bool | None]


def byte_ranges(size: int, length: int) -> list[ByteRange]:
    """Return the ranges (begin, end) that divide `size` bytes, `length` bytes each but for the last."""
    return [(begin, min(begin + length, size)) for begin in range(0, size, length)]


class PartialFile:
    """The part of an object that is on the disk, beside its final `path`; only `begin` creates files."""

    def __init__(self, path: Path, stored: StoredObject):
        self.path, self.size, self._range_bytes = path, stored.size, RANGE_BYTES
        identity = f"{stored.key}\n{stored.size}\n{stored.etag}\n{self._range_bytes}"
        mark = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self.bytes_path = path.with_name(f".{path.name}.{mark}.bytes")
        self.ranges_path = path.with_name(f".{path.name}.{mark}.ranges")

    def can_continue(self) -> bool:
        """Return whether an earlier run left files that can be continued."""
        ranges = len(byte_ranges(self.size, self._range_bytes))
        return _is_file(self.bytes_path, self.size) and _is_file(self.ranges_path, ranges)

    def begin(self) -> None:
        """Create empty files, unless an earlier run left files that can be continued."""
        if self.can_continue():
            return
        self.discard()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.bytes_path, "xb") as file:
            file.truncate(self.size)
        self.ranges_path.write_bytes(bytes(len(byte_ranges(self.size, self._range_bytes))))

    def missing_ranges(self) -> list[ByteRange]:
        """Return the ranges that are still to be fetched."""
        ranges = byte_ranges(self.size, self._range_bytes)
        done = self.ranges_path.read_bytes() if self.can_continue() else bytes(len(ranges))
        return [span for span, flag in zip(ranges, done, strict=True) if not flag]

    def bytes_done(self) -> int:
        """Return how many bytes are on the disk."""
        return self.size - sum(end - begin for begin, end in self.missing_ranges())

    def mark_done(self, span: ByteRange) -> None:
        """Record that the bytes of `span` are on the disk. The caller must have synced them."""
        with open(self.ranges_path, "r+b") as file:
            file.seek(span[0] // self._range_bytes)
            file.write(_DONE)

    def finish(self) -> None:
        """Give the complete file its final name."""
        with open(self.bytes_path, "rb") as file:
            os.fsync(file.fileno())
        os.replace(self.bytes_path, self.path)
        self.ranges_path.unlink()

    def discard(self) -> None:
        """Remove the partial files: the record of the ranges first, so that it never lists bytes that are gone."""
        self.ranges_path.unlink(missing_ok=True)
        self.bytes_path.unlink(missing_ok=True)


def _is_file(path: Path, size: int) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size == size


@dataclass(frozen=True)
class Transfer:
    """The downloads of one run, as tasks that a pool of threads may do in any order."""

    store: FileStore
    count: Callable[[int], None]
    """Called with the number of bytes received; with a negative number for bytes that must be fetched again."""
    stop: threading.Event
    """Set by the caller to end all tasks."""

    def at_once(self, stored: StoredObject, path: Path) -> list[Task]:
        """Return one task that fetches the whole object to `path`.

        The task returns True if the checksum was verified, False if only the size could be verified.
        """
        return [partial(self._fetch_whole, stored, path)]

    def in_ranges(self, stored: StoredObject, part: PartialFile) -> list[Task]:
        """Return one task for each missing range of `part`; the task that ends last returns as in `at_once`."""
        with _write_errors(part.path):
            part.begin()
            missing = part.missing_ranges()
        remaining, lock = len(missing), threading.Lock()

        def fetch(span: ByteRange) -> bool | None:
            nonlocal remaining
            self._fetch_range(stored, part, span)
            with lock:
                remaining -= 1
                is_last = remaining == 0
            return self._complete(stored, part) if is_last else None

        return [partial(fetch, span) for span in missing] or [partial(self._complete, stored, part)]

    def _fetch_whole(self, stored: StoredObject, path: Path) -> bool:
        def once() -> bool:
            with atomic_path(path) as temporary:
                with open(temporary, "wb") as file:
                    self._receive(stored, (0, stored.size), file)
                return self._verify(stored, temporary)

        with _write_errors(path):
            return with_retries(once, stop=self.stop)

    def _fetch_range(self, stored: StoredObject, part: PartialFile, span: ByteRange) -> None:
        def once() -> None:
            with open(part.bytes_path, "r+b") as file:
                file.seek(span[0])
                self._receive(stored, span, file)
                file.flush()
                os.fsync(file.fileno())
            part.mark_done(span)

        with _write_errors(part.path):
            with_retries(once, stop=self.stop)

    def _complete(self, stored: StoredObject, part: PartialFile) -> bool:
        """Verify the file and give it its final name; if its checksum differs, discard it and fetch it again."""

        def once() -> bool:
            part.begin()
            for span in part.missing_ranges():
                self._fetch_range(stored, part, span)
            try:
                has_checksum = self._verify(stored, part.bytes_path)
            except (TransientError, RunFailed):
                part.discard()
                raise
            part.finish()
            return has_checksum

        with _write_errors(part.path):
            return with_retries(once, stop=self.stop)

    def _receive(self, stored: StoredObject, span: ByteRange, file: BinaryIO) -> None:
        """Write the bytes of `span` at the current position of `file`; never write more than these."""
        received, announced = 0, span[1] - span[0]
        try:
            for piece in self.store.read(stored, *span):
                if self.stop.is_set():
                    raise Stopped
                received += len(piece)
                self.count(len(piece))
                if received > announced:
                    break
                file.write(piece)
            if received != announced:
                raise TransientError(f"{self.store.url(stored.key)}: {received} bytes came, {announced} were announced")
        except TransientError:
            self.count(-received)
            raise

    def _verify(self, stored: StoredObject, path: Path) -> bool:
        """Return whether the object has a checksum to verify; raise TransientError if the file differs from it.

        A file that differs from a SHA-256 known beforehand is another one; the next try would fetch it again.
        """
        matches = matches_checksum(self.store, stored, path)
        if matches is False:
            self.count(-stored.size)
            if stored.sha256:
                raise RunFailed(
                    f"{self.store.url(stored.key)}: is not the file that was recorded: SHA-256 {sha256(path)}, "
                    f"expected {stored.sha256}; what came is removed"
                )
            raise TransientError(f"{self.store.url(stored.key)}: what came differs from its checksum {stored.etag}")
        return matches is True


def matches_checksum(store: FileStore, stored: StoredObject, path: Path) -> bool | None:
    """Return whether the file at `path` has the checksum of the object; None if the answer is unknown."""
    if stored.sha256:
        return sha256(path) == stored.sha256
    part_size = store.part_size(stored) if is_multipart(stored.etag) else None
    matches = matches_etag(path, stored.etag, part_size)
    return None if matches is False and store.is_encrypted(stored) else matches


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Turn errors of the file system into RunFailed."""
    try:
        yield
    except OSError as error:
        raise RunFailed(f"{path}: cannot be written: {error.strerror}") from None
