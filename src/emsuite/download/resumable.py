"""Large files on their way: they grow in byte ranges beside their final place, and a killed run's are continued.

    data                         the file, once it is whole
    .data.<mark>.bytes           its bytes: as long as the whole file from the start, with holes
    .data.<mark>.ranges          one byte per range: 1 where the range is on the disk

The mark stands for the object's key, size and ETag and for the size of the ranges, so that a part of something else is
never continued. Knows nothing of where the bytes come from.

Objects of a store that become files: whole in one go, or in ranges by several workers; retried, and verified.

A file takes its name when its size and checksum have been verified, so it is there whole or not at all.
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
from emsuite.common.files import atomic_path
from emsuite.download import object_store as etag
from emsuite.download.object_store import Store, StoredObject
from emsuite.download.retry import Stopped, Unreliable, retried

LARGE = 32 << 20  # bytes; larger objects are fetched in ranges
RANGE = 16 << 20  # bytes; what a killed run loses of each connection at most
NAMES = (".*.bytes", ".*.ranges")  # of all files that are on their way
_DONE = b"\1"

Range = tuple[int, int]


def byte_ranges(size: int, length: int) -> list[Range]:
    """The ranges (begin, end), `length` bytes each but for the last, that make up `size` bytes."""
    return [(begin, min(begin + length, size)) for begin in range(0, size, length)]


class Partial:
    """A part of the file at `path`, that will hold `stored`; nothing is written before `begin` is called."""

    def __init__(self, path: Path, stored: StoredObject):
        self.path, self.size, self._length = path, stored.size, RANGE
        bound = f"{stored.key}\n{stored.size}\n{stored.etag}\n{self._length}"
        mark = hashlib.sha256(bound.encode()).hexdigest()[:16]
        self.part = path.with_name(f".{path.name}.{mark}.bytes")
        self.record = path.with_name(f".{path.name}.{mark}.ranges")

    def is_there(self) -> bool:
        """Whether an earlier run left a part that can be continued."""
        ranges = len(byte_ranges(self.size, self._length))
        return _is_file(self.part, self.size) and _is_file(self.record, ranges)

    def begin(self) -> None:
        """Make an empty part, unless there is one that can be continued."""
        if self.is_there():
            return
        self.discard()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.part, "xb") as file:
            file.truncate(self.size)
        self.record.write_bytes(bytes(len(byte_ranges(self.size, self._length))))

    def missing(self) -> list[Range]:
        """The ranges that are still to be fetched, in bytes (begin, end)."""
        ranges = byte_ranges(self.size, self._length)
        done = self.record.read_bytes() if self.is_there() else bytes(len(ranges))
        return [span for span, flag in zip(ranges, done, strict=True) if not flag]

    def bytes_there(self) -> int:
        """How many bytes an earlier run left."""
        return self.size - sum(end - begin for begin, end in self.missing())

    def mark_done(self, span: Range) -> None:
        """Record that the bytes of `span` are on the disk, as they must be by then."""
        with open(self.record, "r+b") as file:
            file.seek(span[0] // self._length)
            file.write(_DONE)

    def finish(self) -> None:
        """Give the part, whole by now, its final name."""
        with open(self.part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(self.part, self.path)
        self.record.unlink()

    def discard(self) -> None:
        """Remove what is there; the record first, as it must not speak of bytes that are gone."""
        self.record.unlink(missing_ok=True)
        self.part.unlink(missing_ok=True)


def _is_file(path: Path, size: int) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size == size


Task = Callable[[], bool | None]


@dataclass(frozen=True)
class Transfer:
    """What all transfers of a run share: `count` is told of bytes as they come (or are lost), `stop` ends them."""

    store: Store
    count: Callable[[int], None]
    stop: threading.Event

    def whole(self, stored: StoredObject, path: Path) -> list[Task]:
        """One task, which fetches the object in one go; it returns whether its checksum could be verified."""
        return [partial(self._fetch_whole, stored, path)]

    def in_ranges(self, stored: StoredObject, part: Partial) -> list[Task]:
        """Tasks that fetch what is missing of `part`, in any order; the one that ends last returns as `whole` does."""
        with _writing(part.path):
            part.begin()
            missing = part.missing()
        left, lock = len(missing), threading.Lock()

        def fetch(span: Range) -> bool | None:
            nonlocal left
            self._fetch_range(stored, part, span)
            with lock:
                left -= 1
                last = left == 0
            return self._complete(stored, part) if last else None

        return [partial(fetch, span) for span in missing] or [partial(self._complete, stored, part)]

    def _fetch_whole(self, stored: StoredObject, path: Path) -> bool:
        def once() -> bool:
            with atomic_path(path) as temporary:
                with open(temporary, "wb") as file:
                    self._receive(stored, (0, stored.size), file)
                return self._check(stored, temporary)

        with _writing(path):
            return retried(once, stop=self.stop)

    def _fetch_range(self, stored: StoredObject, part: Partial, span: Range) -> None:
        def once() -> None:
            with open(part.part, "r+b") as file:
                file.seek(span[0])
                self._receive(stored, span, file)
                file.flush()
                os.fsync(file.fileno())
            part.mark_done(span)

        with _writing(part.path):
            retried(once, stop=self.stop)

    def _complete(self, stored: StoredObject, part: Partial) -> bool:
        """Verify the part and give it its name; a part that differs is thrown away and fetched anew."""

        def once() -> bool:
            part.begin()
            for span in part.missing():
                self._fetch_range(stored, part, span)
            try:
                good = self._check(stored, part.part)
            except Unreliable:
                part.discard()
                raise
            part.finish()
            return good

        with _writing(part.path):
            return retried(once, stop=self.stop)

    def _receive(self, stored: StoredObject, span: Range, file: BinaryIO) -> None:
        """Write the bytes of `span` as they come, and no others, to where `file` stands."""
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
                raise Unreliable(f"{self.store.url(stored.key)}: {received} bytes came, {announced} were announced")
        except Unreliable:
            self.count(-received)
            raise

    def _check(self, stored: StoredObject, path: Path) -> bool:
        good = verified(self.store, stored, path)
        if good is False:
            self.count(-stored.size)
            raise Unreliable(f"{self.store.url(stored.key)}: what came differs from its checksum {stored.etag}")
        return good is True


def verified(store: Store, stored: StoredObject, path: Path) -> bool | None:
    """Whether the file at `path` has the object's checksum; None where that cannot be told."""
    part_size = store.part_size(stored) if etag.in_parts(stored.etag) else None
    return etag.matches(path, stored.etag, part_size)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunFailed(f"{path}: cannot be written: {error.strerror}") from None
