"""Samples drawn ahead in the background, in order."""

from collections.abc import Callable, Iterator
from typing import TypeVar

Drawn = TypeVar("Drawn")


def prefetch(draw: Callable[[int], Drawn], start: int, stop: int, ahead: int = 2) -> Iterator[Drawn]:
    """`draw(start)` to `draw(stop - 1)` in order, up to `ahead` of them ready before they are asked for."""
    raise NotImplementedError
