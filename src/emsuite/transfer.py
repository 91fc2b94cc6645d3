"""Objects of a store that become files: whole in one go, or in ranges by several workers; retried, and verified.

A file takes its name when its size and checksum have been verified, so it is there whole or not at all.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from emsuite import etag
from emsuite.errors import RunFailed
from emsuite.files import atomic_path
from emsuite.partial import Partial, Range
from emsuite.retry import Stopped, Unreliable, retried
from emsuite.store import Store, StoredObject

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
