"""Signals that ask a long run to end: it finishes what it is at, saves, and ends with a code that tells why."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""Schedulers send the first before they kill, and Slurm the second, some time ahead, where a job asks for it."""


@dataclass
class StopRequest:
    """Whether, and by which signal, the run was asked to end."""

    signal: int = 0
    """0 if it was not."""

    @property
    def exit_code(self) -> int:
        """128 + the signal, as a shell has it; 0 if the run was not asked to end."""
        return 128 + self.signal if self.signal else 0


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Inside, SIGTERM and SIGUSR1 are noted down instead of ending the process. For the main thread."""
    request = StopRequest()

    def note(number: int, _frame: FrameType | None) -> None:
        request.signal = number

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
