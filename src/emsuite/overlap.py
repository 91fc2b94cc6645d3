"""Work on one item after the other in three stages that overlap: read ahead, compute, write behind.

read       2  3  4  5          threads
compute    1  2  3  4          the calling thread
write         1  2  3  4       threads
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from emsuite.prefetch import prefetch

Item = TypeVar("Item")
Read = TypeVar("Read")
Computed = TypeVar("Computed")


def overlap(
    items: Sequence[Item],
    read: Callable[[Item], Read],
    compute: Callable[[Read], Computed],
    write: Callable[[Item, Computed], None],
    writers: int = 1,
    readers: int = 1,
) -> Generator[Item, None, None]:
    """Yield the `items` once they are written, in order.

    At most `readers` are read ahead and `writers` are being written: what is held does not grow with the items. What a
    stage raises is raised here; no write begins after that, and those that have begun end first.
    """
    pool = ThreadPoolExecutor(writers, "write")
    writing: deque[tuple[Item, Future[None]]] = deque()
    ahead = prefetch(lambda number: read(items[number]), 0, len(items), readers, readers)
    try:
        for item, given in zip(items, ahead, strict=True):
            computed = compute(given)
            del given
            if len(writing) == writers:
                yield _written(writing)
            writing.append((item, pool.submit(write, item, computed)))
            del computed
        while writing:
            yield _written(writing)
    finally:
        ahead.close()
        pool.shutdown(cancel_futures=True)


def _written(writing: "deque[tuple[Item, Future[None]]]") -> Item:
    item, future = writing.popleft()
    future.result()
    return item
