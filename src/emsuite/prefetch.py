"""Samples drawn ahead in the background, in order."""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
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
