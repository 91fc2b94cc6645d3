"""Samples drawn ahead in the background, in order."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import torch

Drawn = TypeVar("Drawn")


def prefetch(draw: Callable[[int], Drawn], start: int, stop: int, ahead: int = 2, workers: int = 1) -> Iterator[Drawn]:
    """`draw(start)` to `draw(stop - 1)` in order, up to `ahead` of them drawn before they are asked for.

    What `draw` raises is raised here, at its turn. The threads end with the iterator, also when it is closed early.
    Each lets torch use one core, so that drawing and training do not wait for each other.
    """
    pool = _pool(workers)
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


def _pool(workers: int) -> ThreadPoolExecutor:
    threads, all_there = torch.get_num_threads(), Barrier(workers)
    pool = ThreadPoolExecutor(workers, "prefetch", initializer=torch.set_num_threads, initargs=(1,))
    list(pool.map(lambda _: all_there.wait(), range(workers)))
    # each of the calls above set, besides its own thread's number, that of all threads still to come
    torch.set_num_threads(threads)
    return pool
