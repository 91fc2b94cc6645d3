"""Signals that ask a run to end: the run finishes its iteration, saves, and ends with a code that names the signal."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""Schedulers send SIGTERM before they kill a job. Slurm sends SIGUSR1 some time before, if the job asks for it."""


@dataclass
class StopRequest:
    """The signal that asked the run to end."""

    signal: int = 0
    """Its number; 0 without a signal."""

    @property
    def exit_code(self) -> int:
        """128 + the number of the signal, as shells report it; 0 without a signal."""
        return 128 + self.signal if self.signal else 0


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Record SIGTERM and SIGUSR1 inside the block, instead of ending the process. Call it from the main thread."""
    request = StopRequest()

    def note(number: int, _frame: FrameType | None) -> None:
        request.signal = number

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
