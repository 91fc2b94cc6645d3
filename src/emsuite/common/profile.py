"""How long the parts of repeated work take, on all threads, as a table.

    with profiling(device) as profile:
        ...
            with timed("warp", raw.device):     in any thread, in any function below
                ...
        print(as_table(profile.take()))

    part         count      min      max     mean   median    (ms)
    warp           200     3.11     5.02     3.40     3.31

Work on a GPU is measured there, by events, and nothing waits for it until `take`. What a CUDA graph replays is no work
of the host: its parts are not seen, only the replay as a whole. Without a profile, `timed` does nothing.
"""

import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import torch

_NOTHING = nullcontext()


class PartTime(NamedTuple):
    """How long a part took each time, ms."""

    number: int
    shortest: float
    longest: float
    mean: float
    median: float


class Profile:
    """The times of all parts since the last `take`."""

    def __init__(self, device: torch.device | None = None):
        """Measure nothing yet; `device` is the one that `take` waits for, if it is a GPU."""
        self._device = device
        self._lock = threading.Lock()
        self._seconds: dict[str, list[float]] = {}
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def span(self, part: str, device: torch.device | None) -> Iterator[None]:
        """Measure the block as one more time of a part."""
        if device is not None and device.type == "cuda":
            if torch.cuda.is_current_stream_capturing():  # a graph is recorded: nothing is computed
                yield
                return
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            yield
            end.record()
            with self._lock:
                self._events.append((part, begin, end))
            return
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        with self._lock:
            self._seconds.setdefault(part, []).append(seconds)

    def take(self) -> dict[str, PartTime]:
        """Return the times of each part so far, and begin anew; wait for what the caller's GPU has to do.

        Work that other streams have not finished counts the next time.
        """
        if self._device is not None and self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        with self._lock:
            seconds, events = self._seconds, self._events
            done = [end.query() for _, _, end in events]
            self._seconds, self._events = {}, [one for one, is_done in zip(events, done, strict=True) if not is_done]
        for (part, begin, end), is_done in zip(events, done, strict=True):
            if is_done:
                seconds.setdefault(part, []).append(begin.elapsed_time(end) / 1000)
        return {part: _times([1000 * each for each in all_]) for part, all_ in seconds.items()}


_current: Profile | None = None


@contextmanager
def profiling(device: torch.device | None = None, enabled: bool = True) -> Iterator[Profile | None]:
    """Within the block, measure what is `timed` in all threads of this process; if not `enabled`, yield None."""
    global _current
    before, _current = _current, Profile(device) if enabled else None
    try:
        yield _current
    finally:
        _current = before


def timed(part: str, device: torch.device | None = None) -> AbstractContextManager[None]:
    """Return a context whose block is measured, if anything is.

    Args:
        part: its name in the table. Parts may lie in parts.
        device: that computes; None: the host.
    """
    return _NOTHING if _current is None else _current.span(part, device)


def as_table(times: Mapping[str, PartTime]) -> str:
    """Return a table for people, with a line for each part."""
    width = max(map(len, ["part", *times]))
    lines = [f"{'part':<{width}}  {'count':>6}  {'min':>9}  {'max':>9}  {'mean':>9}  {'median':>9}  ms"]
    for part, (count, *numbers) in times.items():
        lines.append(f"{part:<{width}}  {count:>6}  " + "  ".join(f"{number:>9.3f}" for number in numbers))
    return "\n".join(lines)


def _times(milliseconds: Sequence[float]) -> PartTime:
    return PartTime(
        len(milliseconds), min(milliseconds), max(milliseconds), statistics.fmean(milliseconds),
        statistics.median(milliseconds),
    )  # fmt: skip
