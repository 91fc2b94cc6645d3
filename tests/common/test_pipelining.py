"""Drawing ahead, and three stages side by side: order, what is held, and how each of them fails."""

import threading
import time
from functools import partial

import pytest

from emsuite.common.pipelining import in_bursts, overlap, prefetch


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
    until = time.monotonic() + 60
    while len(drawn) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.05)  # a fourth would come now
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


def test_items_come_out_in_order_once_written() -> None:
    written: list[tuple[int, int]] = []
    for item in overlap(range(7), lambda n: 10 * n, lambda n: n + 1, lambda n, value: written.append((n, value))):
        assert (item, 10 * item + 1) in written
    assert written == [(n, 10 * n + 1) for n in range(7)]
    assert list(overlap([], str, str, print)) == []


@pytest.mark.parametrize(("writers", "readers"), [(1, 1), (3, 1), (2, 4)])
def test_what_is_held_does_not_grow(writers: int, readers: int) -> None:
    """Items that are read and not yet written: those ahead, one in hand, and as many as there are writers."""
    lock, held, most = threading.Lock(), 0, 0

    def read(number: int) -> int:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        return number

    def write(_number: int, _value: int) -> None:
        nonlocal held
        time.sleep(0.005)
        with lock:
            held -= 1

    assert list(overlap(range(30), read, lambda n: n, write, writers, readers)) == list(range(30))
    assert most <= writers + readers + 2
    assert held == 0


def test_the_stages_overlap() -> None:
    """Each waits for what only the next item, or the item before, brings about."""
    read_second, written_first = threading.Event(), threading.Event()

    def read(number: int) -> int:
        if number == 1:
            read_second.set()
        return number

    def compute(number: int) -> int:
        if number == 0:
            assert read_second.wait(60), "the second item is not read while the first one is computed"
        else:
            written_first.set()
        return number

    def write(number: int, _value: int) -> None:
        if number == 0:
            assert written_first.wait(60), "the second item is not computed while the first one is written"

    assert list(overlap(range(2), read, compute, write)) == [0, 1]


@pytest.mark.parametrize("stage", ["read", "compute", "write"])
def test_what_a_stage_raises_ends_it_all(stage: str) -> None:
    written: list[int] = []
    threads = threading.active_count()

    def at(name: str, number: int) -> int:
        if name == stage and number == 3:
            raise OSError(28, "No space left on device")
        return number

    running = overlap(
        range(10), partial(at, "read"), partial(at, "compute"), lambda n, _: written.append(at("write", n))
    )
    with pytest.raises(OSError, match="No space left"):
        list(running)
    assert {0, 1} <= set(written) <= {0, 1, 2, 4, 5}
    assert threading.active_count() == threads


def test_it_ends_when_it_is_closed_early() -> None:
    written, threads = [], threading.active_count()
    running = overlap(range(100), lambda n: n, lambda n: n, lambda n, _: written.append(n))
    assert next(running) == 0
    running.close()
    assert len(written) <= 3
    assert threading.active_count() == threads
