"""Signals that ask a run to end: the run finishes its iteration, saves, and ends with a code that names the signal.

A second Ctrl-C ends it at once, without saving.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""Schedulers send SIGTERM before they kill a job. Slurm sends SIGUSR1 some time before, if the job asks for it. Ctrl-C
sends SIGINT."""
_SAID = b"\nCtrl-C: saving behind this iteration; once more ends at once\n"


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
    """Record the first of `SIGNALS` inside the block, instead of ending the process. Call it from the main thread.

    A signal that the process was started to ignore, as SIGINT by a shell in the background, stays ignored.

    Raises:
        KeyboardInterrupt: On the second Ctrl-C.
    """
    request = StopRequest()

    def note(number: int, _frame: FrameType | None) -> None:
        request.signal = number

    def note_interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        note(number, frame)
        os.write(2, _SAID)

    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {n: signal.signal(n, note_interrupt if n == signal.SIGINT else note) for n in heard}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
