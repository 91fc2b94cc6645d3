import threading

import pytest

from emsuite.common.errors import BadInput, RunFailed
from emsuite.download import retry
from emsuite.download.retry import Stopped, Unreachable, Unreliable, retried


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


def test_what_passes_is_tried_again() -> None:
    call = Fails(5, Unreliable("slow down"))
    assert retried(call) == 7
    assert call.calls == 6


def test_what_does_not_pass_fails_with_its_reason() -> None:
    call = Fails(99, Unreliable("slow down"))
    with pytest.raises(RunFailed, match=r"slow down \(tried 9 times"):
        retried(call)
    assert call.calls == 9


def test_no_connection_at_all_is_given_up_sooner() -> None:
    call = Fails(99, Unreachable("nobody there"))
    with pytest.raises(RunFailed, match="nobody there"):
        retried(call, tries_to_reach=3)
    assert call.calls == 3


def test_other_errors_are_not_tried_again() -> None:
    call = Fails(1, BadInput("no such bucket"))
    with pytest.raises(BadInput):
        retried(call)
    assert call.calls == 1


def test_stopping_ends_the_waiting() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        retried(Fails(1, Unreliable("slow down")), stop=stop)
