"""Work on items in order, in background threads: samples are drawn ahead, and reading, computing and writing overlap.

    prefetch     draws items ahead, while the caller works on earlier ones
    in_bursts    draws several items at once, while the caller waits
    overlap      reads ahead, computes, writes behind:

                 read       2  3  4  5          threads
                 compute    1  2  3  4          the calling thread
                 write         1  2  3  4       threads

Threads suffice, because torch and numba release Python's lock and so run side by side.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

Drawn = TypeVar("Drawn")
Item = TypeVar("Item")
Read = TypeVar("Read")
Computed = TypeVar("Computed")


def prefetch(
    draw: Callable[[int], Drawn],
    start: int,
    stop: int,
    ahead: int = 2,
    workers: int = 1,
    initializer: Callable[[], None] | None = None,
) -> Generator[Drawn, None, None]:
    """Yield `draw(start)` to `draw(stop - 1)` in order, drawn in the background.

    An error of `draw` is raised when its item is due. The threads end with the generator, also if it is closed early.

    Args:
        draw: Makes the item of a number. It is called in other threads.
        start: The first number.
        stop: The number behind the last one.
        ahead: The number of items that are drawn before the caller asks for them.
        workers: The number of threads that draw.
        initializer: Called once in each thread, before it draws.
    """
    return _ahead(range(start, stop), draw, ahead, workers, initializer)


def _ahead(
    items: Iterable[Item],
    draw: Callable[[Item], Drawn],
    ahead: int,
    workers: int,
    initializer: Callable[[], None] | None = None,
) -> Generator[Drawn, None, None]:
    pool = ThreadPoolExecutor(workers, "prefetch", initializer)
    waiting: deque[Future[Drawn]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(draw, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def in_bursts(
    draw: Callable[[int], Drawn], start: int, stop: int, size: int, initializer: Callable[[], None]
) -> Generator[Drawn, None, None]:
    """Yield `draw(start)` to `draw(stop - 1)` in order, `size` of them drawn at once.

    No item is drawn while the caller works on one, so that its work has the machine for itself. An error of `draw` is
    raised when its item is due. `initializer` is called once in each thread, before it draws.
    """
    with ThreadPoolExecutor(size, "burst", initializer) as pool:
        for begin in range(start, stop, size):
            drawn = deque(pool.submit(draw, number) for number in range(begin, min(begin + size, stop)))
            wait(drawn)
            while drawn:  # the caller alone holds an item, so that its memory is free when the caller drops it
                yield drawn.popleft().result()


def overlap(
    items: Iterable[Item],
    read: Callable[[Item], Read],
    compute: Callable[[Read], Computed],
    write: Callable[[Item, Computed], None],
    writers: int = 1,
    readers: int = 1,
) -> Generator[Item, None, None]:
    """Yield each of the `items`, in order, as soon as it is written.

    Memory does not grow with the number of items: at most `readers` items are read ahead, and at most `writers` are
    being written. An error of any of the three functions is raised here; no write begins after it, and writes that have
    begun end first.

    Args:
        items: What to work on.
        read: Reads the input of an item, in a thread.
        compute: Computes the output from the input, in the calling thread.
        write: Writes the output of an item, in a thread.
        writers: The number of threads that write.
        readers: The number of threads that read.
    """
    pool = ThreadPoolExecutor(writers, "write")
    writing: deque[tuple[Item, Future[None]]] = deque()
    ahead = _ahead(items, lambda item: (item, read(item)), readers, readers)
    try:
        for item, inputs in ahead:
            computed = compute(inputs)
            del inputs
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
