"""Targets as a CUDA graph, as far as a CPU can tell: what may be recorded, when, and what is copied."""

from dataclasses import replace

import pytest
import torch

from emsuite.losses.target import Target
from emsuite.targets import graph as graphs
from emsuite.targets.boundary import GrowBoundary
from emsuite.targets.graph import HostTraffic, TargetGraph, copied
from emsuite.targets.heads import AffinitiesHead, LossSwitch
from emsuite.targets.make import TargetMaker

HEAD = AffinitiesHead(target="affinities", neighborhood=((-1, 0, 0), (0, 2, 0)),
                      switch_to=LossSwitch(iteration=20, loss="bce"))  # fmt: skip
MAKER = TargetMaker({"affs": HEAD}, (10, 10, 10), GrowBoundary(steps=1, in_plane=True), renumber_from=30)
LABELS = torch.randint(0, 4, (2, 9, 10, 11), dtype=torch.int32)
MASK = torch.ones_like(LABELS, dtype=torch.uint8)


def test_affinities_need_nothing_of_the_host() -> None:
    labels, mask = LABELS.to("meta"), MASK.to("meta")
    with HostTraffic() as traffic:
        targets = MAKER(labels, mask, 1)
    assert targets["affs"].values.shape == (2, 2, 8, 8, 11)
    assert traffic.found == set()


@pytest.mark.parametrize(
    ("work", "name"),
    [
        (lambda: LABELS.sum().item(), "_local_scalar_dense"),
        (lambda: torch.unique(LABELS), "_unique2"),
        (lambda: LABELS[LABELS > 1], "index"),
        (lambda: (LABELS > 1).nonzero(), "nonzero"),
        (lambda: LABELS.to("meta"), "_to_copy between devices"),
    ],
)
def test_operations_that_need_the_host_are_found(work, name) -> None:
    with HostTraffic() as traffic:
        work()
    assert name in traffic.found


class Recorded:
    """Stands for a recording: it counts its replays, and makes the targets anew."""

    def __init__(self, make, labels, mask):
        self.make, self.replays = make, 0

    def replay(self, labels, mask):
        self.replays += 1
        return self.make(labels, mask)


@pytest.fixture
def recordings(monkeypatch) -> list[Recorded]:
    made = []
    monkeypatch.setattr(graphs, "_record", lambda *inputs: made.append(Recorded(*inputs)) or made[-1])
    monkeypatch.setattr(graphs, "_DEVICE", "cpu")
    # on a CPU a mask is asked whether it is full
    monkeypatch.setattr(graphs, "_WAITS", graphs._WAITS - {"_local_scalar_dense"})
    return made


def test_a_recording_for_each_shape_and_setting(recordings) -> None:
    graph = TargetGraph(MAKER)
    for iteration in range(1, 36):
        targets = graph(LABELS, MASK, iteration)
        expected = MAKER(LABELS, MASK, iteration)
        assert torch.equal(targets["affs"].values, expected["affs"].values)
        assert torch.equal(targets["affs"].weights, expected["affs"].weights)
    # three calls warm up; from iteration 31 on components are renumbered on the host
    assert [one.replays for one in recordings] == [17, 7]
    for _ in range(5):
        graph(LABELS[:1], MASK[:1], 1)
    assert [one.replays for one in recordings] == [17, 7, 2]


def test_deterministic_runs_are_not_recorded(recordings) -> None:
    graph = TargetGraph(MAKER)
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(9):
            graph(LABELS, MASK, 1)
    finally:
        torch.use_deterministic_algorithms(False)
    assert not recordings


def test_what_needs_the_host_or_cannot_be_recorded_is_made_as_before(recordings, monkeypatch, caplog) -> None:
    def asks(self, labels, mask, iteration):
        labels.unique()
        return {"affs": iteration}

    with monkeypatch.context() as patched:
        patched.setattr(TargetMaker, "__call__", asks)
        graph = TargetGraph(MAKER)
        assert [graph(LABELS, MASK, number)["affs"] for number in range(9)] == list(range(9))
    assert not recordings
    monkeypatch.setattr(graphs, "_record", lambda *inputs: 1 / 0)
    graph = TargetGraph(MAKER)
    for _ in range(9):
        assert torch.equal(graph(LABELS, MASK, 1)["affs"].values, MAKER(LABELS, MASK, 1)["affs"].values)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "need the host (_unique2" in messages[0]
    assert "division by zero" in messages[1]


def test_copies_share_no_memory_and_stay_small() -> None:
    values, labels = torch.rand(2, 3, 4, 4, 4), LABELS[:, 1:5, 2:6, 3:7]
    weights = torch.rand(2, 1, 4, 4, 4).expand(values.shape)
    target = Target(values, weights, labels)
    copies = copied({"one": target, "other": replace(target, values=values + 1)})
    one, other = copies.values()
    assert torch.equal(one.weights, weights)
    assert torch.equal(one.labels, labels)
    assert torch.equal(other.values, values + 1)
    assert one.weights.stride(1) == 0
    assert one.labels.data_ptr() == other.labels.data_ptr()
    before = one.values.clone()
    values.zero_()
    assert torch.equal(one.values, before)
