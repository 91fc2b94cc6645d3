"""How many cores torch may use."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def use_one_core() -> None:
    """From now on torch's operations of the calling thread run on one core."""
    torch.set_num_threads(1)


@contextmanager
def one_core() -> Iterator[None]:
    """Inside, torch's operations of the calling thread run on one core.

    Many short operations gain little from more, and wait for each other by far the longest time where cores are busy:
    with eight processes on two cores, a sample took 0.5 s on one thread and 15 s on two.
    """
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
