"""Times of parts: of all threads, since the last look, and nothing at all without a profile."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from emsuite.common import profile
from emsuite.common.profile import PartTime, as_table, profiling, timed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(profile.time, "perf_counter", lambda: now.seconds)
    return now


def test_count_least_most_mean_and_median(clock: SimpleNamespace) -> None:
    with profiling() as made:
        assert made is not None
        for seconds in (0.001, 0.002, 0.009):
            with timed("outer"):
                clock.seconds += seconds
                with timed("inner", torch.device("cpu")):
                    clock.seconds += 1
        times = made.take()
        assert times["outer"] == pytest.approx((3, 1001, 1009, 1004, 1002))
        assert times["inner"] == pytest.approx((3, 1000, 1000, 1000, 1000))
        assert made.take() == {}
        with timed("outer"):
            clock.seconds += 2
        assert made.take() == {"outer": pytest.approx((1, 2000, 2000, 2000, 2000))}


def test_all_threads_count() -> None:
    def work(number: int) -> None:
        for _ in range(200):
            with timed(f"part {number % 2}"):
                pass

    with profiling() as made, ThreadPoolExecutor(8) as pool:
        assert made is not None
        list(pool.map(work, range(8)))
        assert {part: time.number for part, time in made.take().items()} == {"part 0": 800, "part 1": 800}


def test_what_ends_by_an_error_does_not_count() -> None:
    with profiling() as made:
        assert made is not None
        with pytest.raises(ValueError, match="x"), timed("part"):
            raise ValueError("x")
        assert made.take() == {}


def test_without_a_profile_nothing_is_made() -> None:
    assert timed("a") is timed("b", torch.device("cuda", 0)) is profile._NOTHING
    with profiling(enabled=False) as made:
        assert made is None
        assert timed("a") is profile._NOTHING
    with profiling():
        assert timed("a") is not profile._NOTHING
    assert timed("a") is profile._NOTHING


class Event:
    """One of a GPU: reached when its time has come."""

    now, reached = 0.0, 0.0

    def __init__(self, enable_timing: bool):
        assert enable_timing

    def record(self) -> None:
        self.at = Event.now

    def query(self) -> bool:
        return self.at <= Event.reached

    def elapsed_time(self, other: "Event") -> float:
        return other.at - self.at


def test_a_gpu_is_measured_by_events_and_waited_for_at_the_look_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[torch.device] = []
    stream = lambda device: SimpleNamespace(synchronize=lambda: waits.append(device))  # noqa: E731
    capturing = SimpleNamespace(now=False)
    cuda = SimpleNamespace(Event=Event, current_stream=stream, is_current_stream_capturing=lambda: capturing.now)
    monkeypatch.setattr(profile.torch, "cuda", cuda)
    gpu = torch.device("cuda", 0)
    with profiling(gpu) as made:
        assert made is not None
        for end in (3.0, 10.0, 30.0):
            with timed("warp", gpu):
                Event.now = end
        capturing.now = True
        with timed("recorded", gpu):
            pass
        assert waits == []
        Event.reached = 20.0
        assert made.take() == {"warp": pytest.approx((2, 3, 7, 5, 5))}
        assert waits == [gpu]
        Event.reached = 40.0
        assert made.take() == {"warp": pytest.approx((1, 20, 20, 20, 20))}


def test_the_table_has_a_line_for_each_part() -> None:
    lines = as_table({"warp": PartTime(200, 3.1, 5.0, 3.4, 3.25), "low_contrast": PartTime(1, 1, 1, 1, 1)}).splitlines()
    assert [line.split() for line in lines] == [
        ["part", "count", "min", "max", "mean", "median", "ms"],
        ["warp", "200", "3.100", "5.000", "3.400", "3.250"],
        ["low_contrast", "1", "1.000", "1.000", "1.000", "1.000"],
    ]
    assert len({len(line) for line in lines[1:]}) == 1
