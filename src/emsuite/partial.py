"""Large files on their way: they grow in byte ranges beside their final place, and a killed run's are continued.

    data                         the file, once it is whole
    .data.<mark>.bytes           its bytes: as long as the whole file from the start, with holes
    .data.<mark>.ranges          one byte per range: 1 where the range is on the disk

The mark stands for the object's key, size and ETag and for the size of the ranges, so that a part of something else is
never continued. Knows nothing of where the bytes come from.
"""

import hashlib
import os
from pathlib import Path

from emsuite.store import StoredObject

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
