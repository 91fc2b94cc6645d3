"""Checkpoints: what was saved goes where it belongs."""

import json
from pathlib import Path

import pytest
import torch

from emsuite.common.outputs import manifest_path, written
from emsuite.common.provenance import provenance, reproducible
from emsuite.config.training import Optimizer
from emsuite.training import checkpoint as checkpoints
from emsuite.training.checkpoint import load_optimizer
from emsuite.training.optimizer import make_optimizer


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last_3d])
def test_moments_belong_to_their_weights_however_they_lie_in_memory(order: torch.memory_format) -> None:
    shape = (4, 3, 2, 2, 2)
    first, gradient, mean, square = (torch.rand(shape, generator=torch.Generator().manual_seed(n)) for n in range(4))
    weight = torch.nn.Parameter(first.to(memory_format=torch.channels_last_3d))
    optimizer = make_optimizer([weight], Optimizer(learning_rate=0.5))
    moments = {"exp_avg": mean.to(memory_format=order), "exp_avg_sq": square.to(memory_format=order)}
    load_optimizer(optimizer, optimizer.state_dict() | {"state": {0: {"step": torch.tensor(9.0)} | moments}}, Path("c"))
    weight.grad = gradient.to(memory_format=torch.channels_last_3d)
    optimizer.step()
    mean, square = 0.95 * mean + 0.05 * gradient, 0.999 * square + 0.001 * gradient**2
    step = (mean / (1 - 0.95**10)) / ((square / (1 - 0.999**10)).sqrt() + 1e-8)
    torch.testing.assert_close(weight.detach(), first - 0.5 * step, rtol=1e-5, atol=1e-5)
    assert optimizer.state[weight]["exp_avg"].stride() == weight.stride()


def test_checkpoints_of_format_1_are_read(tmp_path):
    weights = {"heads.affs.bias": torch.ones(3)}
    content = {"format": 1, "iteration": 7, "architecture": {"in_channels": 1}, "weights": weights,
               "averaged": {"heads.affs.bias": torch.zeros(3)}, "optimizer": {"state": {}, "param_groups": []},
               "first": "abc", "provenance": {"seed": 3}}  # fmt: skip
    torch.save(content, tmp_path / "checkpoint_7.pt")
    read = checkpoints.read(tmp_path / "checkpoint_7.pt")
    assert (read.iteration, read.frozen_digest, read.provenance) == (7, "abc", {"seed": 3})
    assert torch.equal(read.networks["network"]["heads.affs.bias"], torch.ones(3))
    assert torch.equal(read.best_weights["heads.affs.bias"], torch.zeros(3))
    assert read.optimizer == {"state": {}, "param_groups": []}
    assert read.normalization["settings"]["method"] == "signed_unit_range"
    assert read.grey_scale is None
    torch.save(content | {"averaged": None, "optimizer": None, "first": None}, tmp_path / "checkpoint_8.pt")
    read = checkpoints.read(tmp_path / "checkpoint_8.pt")
    assert (read.averages, read.optimizers, read.frozen_digest) == ({}, {}, None)


def test_format_2_holds_networks_and_optimizers_by_name(tmp_path):
    names = {"generator": {"w": torch.ones(2)}, "discriminator": {"w": torch.zeros(1)}}
    written = checkpoints.Checkpoint(iteration=3, architecture={}, networks=names, optimizers={"both": {"lr": 1.0}})
    read = checkpoints.read(checkpoints.save(tmp_path, written))
    assert list(read.networks) == ["generator", "discriminator"]
    assert read.optimizers == {"both": {"lr": 1.0}}


def test_the_same_content_gives_the_same_bytes_whichever_objects_it_consists_of(tmp_path):
    """As a resumed run writes it: a part was read, and a part was made here."""
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([weight])
    weight.grad = torch.ones(3)
    optimizer.step()
    record = {"settings": {"step": "supervised", "lr": 1, "betas": "x"}, "seed": 3}
    networks, optimizers = {"network": {"w": weight.detach()}}, {"network": optimizer.state_dict()}
    content = {"iteration": 3, "architecture": {"step": 1}, "networks": networks, "optimizers": optimizers}
    written = checkpoints.Checkpoint(**content, provenance=record)
    first = checkpoints.save(tmp_path / "a", written)
    resumed = content | {"optimizers": checkpoints.read(first).optimizers}
    again = checkpoints.save(tmp_path / "b", checkpoints.Checkpoint(**resumed, provenance=record))
    assert again.read_bytes() == first.read_bytes()


def test_times_and_names_are_in_the_manifest_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "host-of-jane")
    record = provenance({"a": 1}, {"0": tmp_path / "jane/v.zarr"})
    made = checkpoints.Checkpoint(iteration=3, architecture={}, networks={"network": {}}, provenance=record)
    path = checkpoints.save(tmp_path, made)
    assert json.loads(manifest_path(path).read_text()) == record | {"iteration": 3, "written": written(path)}
    assert checkpoints.read(path).provenance == reproducible(record)
    for word in (record["private"]["host"], "jane", "started", str(tmp_path)):
        assert word.encode() not in path.read_bytes(), word
