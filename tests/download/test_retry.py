import threading

import pytest

from emsuite.common.errors import BadInput, RunFailed
from emsuite.download import retry
from emsuite.download.retry import Stopped, TransientError, Unreachable, with_retries


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_FIRST_DELAY", 0.0)


class Fails:
    """Fails a number of times, then gives 7."""

    def __init__(self, times: int, error: Exception):
        self.left, self.error, self.calls = times, error, 0

    def __call__(self) -> int:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error
        return 7


def test_transient_errors_are_retried() -> None:
    call = Fails(5, TransientError("slow down"))
    assert with_retries(call) == 7
    assert call.calls == 6


def test_a_persistent_error_fails_with_its_reason() -> None:
    call = Fails(99, TransientError("slow down"))
    with pytest.raises(RunFailed, match=r"slow down \(tried 9 times"):
        with_retries(call)
    assert call.calls == 9


def test_without_any_connection_it_gives_up_sooner() -> None:
    call = Fails(99, Unreachable("nobody there"))
    with pytest.raises(RunFailed, match="nobody there"):
        with_retries(call, tries_to_reach=3)
    assert call.calls == 3


def test_other_errors_are_not_retried() -> None:
    call = Fails(1, BadInput("no such bucket"))
    with pytest.raises(BadInput):
        with_retries(call)
    assert call.calls == 1


def test_stopping_ends_the_waiting() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        with_retries(Fails(1, TransientError("slow down")), stop=stop)
