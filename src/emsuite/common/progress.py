"""Progress of long work on standard error: a bar on a terminal, plain lines in a log file."""

import contextlib
import re
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from emsuite.common.errors import one_line

_SECONDS_BETWEEN_LINES = 10.0
_LINE = "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"

_SHOWN = re.compile(r".*\d+%\|?.* \S+/\S+ \[\S+<.*\]\s*|.*: \d\S* \[\d+:\d\d, .*\]\s*")
"""A line of `_LINE`, the bar of a terminal, or either of them where the number of items is unknown."""
_LONGEST = 1000


class _PlainLines(tqdm):
    """A tqdm that writes whole lines, so that a log file can be read while it grows."""

    _shown: float | None = None

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        with contextlib.suppress(BrokenPipeError):  # a Ctrl-C ends `tee` before the run has saved its work
            print(str(self) if msg is None else msg, file=self.fp, flush=True)
        self._shown = self.n

    def close(self) -> None:
        # tqdm's own method would write the last line again, and an empty one
        if not self.disable and self._shown != self.n:
            self.display()
        self.disable = True


def progress(
    items: Iterable[Any] | None = None, *, what: str, total: int | None = None, done: int = 0, unit: str = "it"
) -> "tqdm[Any]":
    """Return a tqdm.

    Args:
        items: The items to iterate over. Without them, the caller updates the tqdm.
        what: The description that is shown.
        total: The number of items, where `items` does not tell.
        done: The number of items that an earlier run has done.
        unit: The name of an item; `B` stands for bytes and is shown with prefixes.
    """
    kind: type[tqdm[Any]] = tqdm if sys.stderr.isatty() else _PlainLines
    every = 0.1 if kind is tqdm else _SECONDS_BETWEEN_LINES
    return kind(
        items,
        desc=one_line(what),
        total=total,
        initial=done,
        unit=unit,
        unit_scale=unit == "B",
        file=sys.stderr,
        mininterval=every,
        maxinterval=2 * every,
        bar_format=None if kind is tqdm else _LINE,
        smoothing=0.05,
    )


def is_progress(line: str) -> bool:
    """Return whether a line of a log tells of progress alone."""
    return len(line) < _LONGEST and _SHOWN.fullmatch(line) is not None


def roughly(seconds: float) -> str:
    """Return a duration in its largest unit: `40 s`, `12 minutes`, `5 hours`, `454 days`."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{round(seconds / length):,} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{round(seconds)} s"
