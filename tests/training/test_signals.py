"""Signals that ask a run to end."""

import os
import signal

import pytest

from emsuite.training.signals import SIGNALS, stop_requests


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_does_not_end_the_process(number: int) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with stop_requests() as request:
        assert (request.signal, request.exit_code) == (0, 0)
        os.kill(os.getpid(), number)
        assert (request.signal, request.exit_code) == (number, 128 + number)
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_handlers_come_back_after_an_error() -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(ValueError, match="broken"), stop_requests():
        raise ValueError("broken")
    assert [signal.getsignal(each) for each in SIGNALS] == before
