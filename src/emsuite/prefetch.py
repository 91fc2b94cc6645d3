"""Samples drawn ahead, in order: in the background, or several at once before they are needed."""

from collections import deque
from collections.abc import Callable, Generator
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
