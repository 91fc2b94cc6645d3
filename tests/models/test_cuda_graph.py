"""Work is recorded in its fourth call and replayed from then on; a GPU that refuses costs speed alone."""

from contextlib import contextmanager

import pytest
import torch

from emsuite.models.cuda_graph import Replayed


class OnGpu(torch.Tensor):
    """A tensor in the host's memory that says that it is on a GPU."""

    @property
    def device(self):
        return torch.device("cuda", 0)


class Graph:
    """Records a function by calling it, and replays it by calling it again with the same tensors."""

    refuses = False
    replays = 0

    def replay(self):
        Graph.replays += 1
        self.again()


class Stream:
    def __init__(self, *_):
        pass

    def wait_stream(self, other):
        pass


@pytest.fixture
def gpu(monkeypatch):
    @contextmanager
    def recording(graph, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        if Graph.refuses:
            raise RuntimeError("not permitted\nwhile recording")
        yield

    @contextmanager
    def on_stream(stream):
        yield

    Graph.refuses, Graph.replays = False, 0
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", on_stream)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float32).as_subclass(OnGpu)


def doubling(calls, result):
    """Return a function that writes twice its input to `result`, as a recorded one does at each replay."""

    def double(tensors):
        calls.append(tensors[0])
        Graph.again = lambda self: result.copy_(2 * tensors[0])
        return result.copy_(2 * tensors[0])

    return double


def test_work_is_recorded_in_the_fourth_call_and_replayed(gpu):
    calls, result, replayed = [], torch.zeros(2), Replayed("work")
    for number in range(1, 8):
        found = replayed(doubling(calls, result), [tensor(number, 1)])
        assert found.tolist() == [2 * number, 2]
    assert len(calls) == 4  # three as written, and the recording
    assert Graph.replays == 4


@pytest.mark.parametrize(("shape", "key"), [((2,), "other"), ((3,), "one")])
def test_another_key_or_shape_begins_anew(gpu, shape, key):
    calls, replayed = [], Replayed("work")
    for _ in range(5):
        replayed(doubling(calls, torch.zeros(2)), [tensor(1, 2)], "one")
    values = list(range(shape[0]))
    result = torch.zeros(shape)
    for _ in range(3):
        replayed(doubling(calls, result), [tensor(*values)], key)
    assert len(calls) == 4 + 3
    assert result.tolist() == [2 * value for value in values]


@pytest.mark.parametrize(("free", "is_kept"), [(900, True), (700, False)])
def test_a_recording_gives_way_to_the_same_work_as_it_is_written(gpu, monkeypatch, free, is_kept):
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 200)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 1000)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**9))
    calls, result, replayed = [], torch.zeros(2), Replayed("work")
    replayed.make_room()  # of nothing
    for number in range(5):
        replayed(doubling(calls, result), [tensor(number, 1)])
    replayed.make_room()
    for number in range(5):
        assert replayed(doubling(calls, result), [tensor(number, 3)]).tolist() == [2 * number, 6]
    assert len(calls) == (4 if is_kept else 8)


def test_a_gpu_that_refuses_runs_the_work_as_it_is(gpu, caplog):
    Graph.refuses = True
    calls, result, replayed = [], torch.zeros(1), Replayed("training")
    for number in range(6):
        assert replayed(doubling(calls, result), [tensor(number)]).tolist() == [2 * number]
    assert len(calls) == 6
    assert [record.getMessage() for record in caplog.records] == [
        "training: no CUDA graph, runs as it is: not permitted"
    ]


def test_a_cpu_runs_the_work_as_it_is():
    calls, result, replayed = [], torch.zeros(1), Replayed("work")
    for number in range(6):
        replayed(doubling(calls, result), [torch.tensor([float(number)])])
    assert len(calls) == 6
