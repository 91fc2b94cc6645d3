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
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.signal == signal.SIGTERM
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_handlers_come_back_after_an_error() -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(ValueError, match="broken"), stop_requests():
        raise ValueError("broken")
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_second_interrupt_ends_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)

    def interrupt_twice() -> None:
        with stop_requests() as request:
            os.kill(os.getpid(), signal.SIGINT)
            assert request.exit_code == 130
            assert "once more ends at once" in capfd.readouterr().err
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupt_twice()
    assert signal.getsignal(signal.SIGINT) == before


def test_what_a_shell_ignores_in_the_background_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_requests() as request:
            os.kill(os.getpid(), signal.SIGINT)
            assert request.signal == 0
    finally:
        signal.signal(signal.SIGINT, before)
