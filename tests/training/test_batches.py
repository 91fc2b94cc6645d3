"""Batches: in order, in parts, the same wherever they are made."""

from threading import Event

import pytest
import torch

from emsuite.common.geometry import Coordinate
from emsuite.config.network import NetworkConfig
from emsuite.data.sampler import Sample, Sampler
from emsuite.data.training_volume import Ones, TrainingVolume
from emsuite.training.batches import Batch, Batches, BatchShare, make_batch

CPU = torch.device("cpu")
CONFIG = NetworkConfig.model_validate({
    "dataset": "d", "network": "n", "voxel_size": [10, 10, 10],
    "unet": {"num_fmaps": 4, "fmap_inc_factor": 2, "downsample_factors": [[2, 2, 2]]},
    "heads": {"affs": {"target": "affinities", "neighborhood": [[-1, 0, 0], [0, 2, 0]]},
              "lsds": {"target": "lsds", "sigma": 20, "downsample": 1}},
    "training": {"iterations": 9, "input_shape": [8, 8, 8], "sampling": {}, "batch_size": 4},
    "prediction": {"input_shape": [20, 20, 20]},
})  # fmt: skip
SHAPE = (20, 21, 22)


def sampler() -> Sampler:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, SHAPE, generator=generator, dtype=torch.int32)
    raw = torch.randint(0, 256, SHAPE, generator=generator, dtype=torch.uint8)
    volume = TrainingVolume(raw, labels, Ones(SHAPE), Coordinate(10, 10, 10), Coordinate(0, 0, 0),
                            Coordinate(0, 0, 0), "v")  # fmt: skip
    return Sampler([volume], (8, 8, 8), (4, 4, 4), CONFIG.target_maker.label_context)


def made_from(sampler: Sampler, share: BatchShare, iterations: range, device: torch.device) -> Batches:
    targets = CONFIG.target_maker
    return Batches(lambda sample, i: make_batch(targets, sample, i, device), sampler, share, iterations, device)


def test_parts_and_shares_make_up_the_batches() -> None:
    whole = list(made_from(sampler(), BatchShare(0, 4), range(3, 5), CPU))
    assert [batch.iteration for batch in whole] == [3, 4]
    assert whole[0].arrays["raw"].shape == (4, 1, 8, 8, 8)
    assert {name: tuple(target.values.shape) for name, target in whole[0].targets.items()} == {
        "affs": (4, 2, 4, 4, 4), "lsds": (4, 10, 4, 4, 4)}  # fmt: skip
    shares = [list(made_from(sampler(), BatchShare(first, 1, 2), range(3, 5), CPU)) for first in (0, 2)]
    parts = [batch for place in (0, 2) for share in shares for batch in share[place : place + 2]]
    for number, batch in enumerate(whole):
        for index, expected in enumerate(batch.tensors):
            found = torch.cat([part.tensors[index] for part in parts[4 * number : 4 * number + 4]])
            assert torch.equal(found, expected)


def test_batches_read_from_disk_are_made_ahead_and_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    in_turn = list(made_from(sampler(), BatchShare(0, 2), range(1, 5), CPU))
    monkeypatch.setattr(Sampler, "in_memory", False)
    made, cores = Event(), set[int]()

    def make(sample: Sample, iteration: int) -> Batch:
        cores.add(torch.get_num_threads())
        if iteration == 2:
            made.set()
        return make_batch(CONFIG.target_maker, sample, iteration, CPU)

    ahead = Batches(make, sampler(), BatchShare(0, 2), range(1, 5), CPU)
    found = [next(ahead)]
    assert made.wait(60), "the next batch is made although nobody asks for it"
    found += ahead
    assert cores == {1}
    assert [batch.iteration for batch in found] == [1, 2, 3, 4]
    for one, other in zip(found, in_turn, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.tensors, other.tensors, strict=True))


def test_waiting_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands still but while a batch is waited for, or while the network trains."""
    clock = [0.0]
    monkeypatch.setattr("emsuite.training.batches.time.perf_counter", lambda: clock[0])
    made = made_from(sampler(), BatchShare(0, 1), range(1, 4), CPU)
    draw = Sampler.draw

    def slowly(self: Sampler, iteration: int, index: int = 0) -> object:
        clock[0] += 5
        return draw(self, iteration, index)

    monkeypatch.setattr(Sampler, "draw", slowly)
    next(made)
    assert made.waited >= 5
    before = made.waited
    clock[0] += 100  # the network trains
    next(made)
    assert made.waited - before < 100
    made.close()
