"""Drawing ahead."""

import threading
import time

import pytest

from emsuite.prefetch import in_bursts, prefetch


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("count", [1, 3])
def test_in_order_however_long_each_takes(count):
    def draw(number: int) -> int:
        time.sleep(0.01 * (number % 3))
        return number

    assert list(prefetch(draw, 5, 17, ahead=4, workers=count)) == list(range(5, 17))
    assert not workers()


def test_no_more_than_asked_for_is_drawn_ahead():
    drawn = []
    samples = prefetch(drawn.append, 0, 100, ahead=2)
    next(samples)
    for _ in range(100):
        if len(drawn) == 3:
            break
        time.sleep(0.01)
    time.sleep(0.05)
    assert drawn == [0, 1, 2]
    samples.close()
    assert not workers()


def test_an_error_is_raised_at_its_turn():
    def draw(number: int) -> int:
        if number == 2:
            raise ValueError("the third")
        return number

    samples = prefetch(draw, 0, 9)
    assert [next(samples), next(samples)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(samples)
    assert not workers()


def test_nothing_to_draw():
    assert list(prefetch(lambda number: number, 3, 3)) == []


def test_bursts_come_in_order_and_wait_for_the_caller():
    drawn = []

    def draw(number: int) -> int:
        time.sleep(0.01 * (3 - number % 3))
        drawn.append(number)
        return number

    samples = in_bursts(draw, 5, 12, 3, lambda: None)
    assert next(samples) == 5
    assert sorted(drawn) == [5, 6, 7]  # all of them before the first is handed over
    time.sleep(0.05)
    assert [next(samples), next(samples)] == [6, 7]
    assert len(drawn) == 3  # nothing is drawn while the caller works
    assert list(samples) == [8, 9, 10, 11]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("burst")]


def test_every_thread_of_a_burst_is_set_up():
    ready = threading.local()

    def set_up() -> None:
        ready.yes = True

    assert all(in_bursts(lambda _number: ready.yes, 0, 8, 2, set_up))


def test_an_error_of_a_burst_is_raised_at_its_turn():
    def draw(number: int) -> int:
        if number == 1:
            raise ValueError("the second")
        return number

    samples = in_bursts(draw, 0, 9, 3, lambda: None)
    assert next(samples) == 0
    with pytest.raises(ValueError, match="the second"):
        next(samples)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("burst")]
