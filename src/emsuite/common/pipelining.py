"""Samples drawn ahead, in order: in the background, or several at once before they are needed.

Work on one item after the other in three stages that overlap: read ahead, compute, write behind.

read       2  3  4  5          threads
compute    1  2  3  4          the calling thread
write         1  2  3  4       threads
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

Drawn = TypeVar("Drawn")


def prefetch(
    draw: Callable[[int], Drawn], start: int, stop: int, ahead: int = 2, workers: int = 1
) -> Generator[Drawn, None, None]:
    """`draw(start)` to `draw(stop - 1)` in order, up to `ahead` of them drawn before they are asked for.

    What `draw` raises is raised here, at its turn. The threads end with the iterator, also when it is closed early;
    threads suffice, since torch and numba run side by side in them.
    """
    pool = ThreadPoolExecutor(workers, "prefetch")
    waiting: deque[Future[Drawn]] = deque()
    try:
        for number in range(start, stop):
            waiting.append(pool.submit(draw, number))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def in_bursts(
    draw: Callable[[int], Drawn], start: int, stop: int, size: int, initializer: Callable[[], None]
) -> Generator[Drawn, None, None]:
    """`draw(start)` to `draw(stop - 1)` in order, `size` at once, each in a thread that `initializer` has set up.

    None is drawn while the caller has one: what it does meanwhile has the machine for itself. What `draw` raises is
    raised at its turn.
    """
    with ThreadPoolExecutor(size, "burst", initializer) as pool:
        for begin in range(start, stop, size):
            drawn = deque(pool.submit(draw, number) for number in range(begin, min(begin + size, stop)))
            wait(drawn)
            while drawn:  # each is forgotten here when it is handed over
                yield drawn.popleft().result()


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
