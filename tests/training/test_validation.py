"""Validation: the loss on held-out samples, the best checkpoint, an early end, resumes, several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import ROOT
from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.outputs import manifest_path
from emsuite.config.network import load_network
from emsuite.io.volume import open_volume
from emsuite.losses.registry import LOSSES
from emsuite.losses.target import HeadOutput
from emsuite.training import checkpoint as checkpoints
from emsuite.training import trainer
from emsuite.training.distributed import Processes
from emsuite.training.log import read_losses
from emsuite.training.registry import STEPS
from emsuite.training.resume import start
from emsuite.training.validation import Validator
from emsuite.training.volumes import load_held_out, load_training_data, training_data
from small_training import AFFS, CPU, LSDS, two_neurons, write_network

TRAIN, HELD_OUT = "@0:140,:,:", "@140:280,:,:"


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_neurons(tmp_path_factory.mktemp("volume") / "v.zarr")


def network(folder: Path, volume: Path, heads: dict | None = None, **training: Any) -> Path:
    validation = {"every": 1, "samples": 3, "data": [f"{volume}{HELD_OUT}"]} | training.pop("validation", {})
    given = {"validation": validation, "checkpoint_every": 100, "sampling": {"min_masked": 0.3}} | training
    return write_network(folder, heads or {"lsds": LSDS}, training=given)


def train(folder: Path, volume: Path, until: int, *overrides: str) -> dict[str, torch.Tensor]:
    config = load_network(folder, overrides)
    loaded = load_training_data(config, [f"{volume}{TRAIN}"], folder)
    trainer.train(folder, config, loaded, until, CPU, held_out=load_held_out(config, folder, loaded))
    return checkpoints.load(folder, config).weights


def scripted(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Let held-out samples have these losses, by iteration from 1 on."""

    def held_out(*_given: object) -> Any:
        def sample(state: Any, _index: int) -> dict[str, torch.Tensor]:
            return dict.fromkeys(["loss", "lsds"], torch.tensor(losses[state.iteration - 1]))

        return sample

    monkeypatch.setattr(STEPS["supervised"], "held_out", held_out)


def test_the_loss_is_that_of_the_samples_with_the_weights_that_predict(tmp_path: Path, volume: Path) -> None:
    """By hand: the averaged weights, in evaluation mode, on the samples of an iteration that training has not."""
    folder = network(tmp_path / "d/n", volume, {"lsds": LSDS, "affs": AFFS}, average=0.5)
    options = ["unet.norm=batch", "unet.dropout=0.5"]
    config = load_network(folder, options)
    loaded = load_training_data(config, [f"{volume}{TRAIN}"], folder)
    held_out = load_held_out(config, folder, loaded)
    state = start(folder, config, CPU)
    for tensor in state.averages["network"].values():
        tensor.copy_(tensor * 0.5)
    before = {name: tensor.clone() for name, tensor in state.network.state_dict().items()}
    validator = Validator(folder, config, state, held_out, Processes(CPU), training_data(held_out))
    found = validator.validate(state)
    assert validator.validate(state) == found
    assert all(torch.equal(before[name], tensor) for name, tensor in state.network.state_dict().items())
    assert all(module.training for module in state.network.modules())
    batches = STEPS["supervised"].make_batches(
        state, config.model_copy(update={"training": config.training.model_copy(update={"augment": ()})}),
        held_out, Processes(CPU).share(1, 1), range(1), CPU)  # fmt: skip
    state.network.load_state_dict(state.averages["network"])
    sampler, expected = batches._sampler, []
    batches.close()
    for index in range(3):
        batch = batches._make_from(sampler.batch(0, 1, index), 0)
        with torch.no_grad():
            logits = state.network.eval()(batch.raw * 2 - 1)
        outputs = {name: HeadOutput(logits[name], head.activate) for name, head in config.heads.items()}
        expected.append([float(LOSSES["weighted_mse"](outputs[name], batch.targets[name])) for name in outputs])
    affs, lsds = torch.tensor(expected).mean(0).tolist()
    assert found == pytest.approx({"loss": lsds + affs, "lsds": lsds, "affs": affs}, rel=1e-5)


def test_training_stays_the_same_and_the_losses_are_logged(tmp_path: Path, volume: Path) -> None:
    folder = network(tmp_path / "a/d/n", volume, validation={"every": 2})
    validated = train(folder, volume, 6)
    plain = train(network(tmp_path / "b/d/n", volume), volume, 6, "training.validation=null")
    assert all(torch.equal(validated[name], plain[name]) for name in plain)
    rows = read_losses(folder / "log/validation.csv")
    assert [row["iteration"] for row in rows] == [2, 4, 6]
    assert rows[0].keys() == {"iteration", "loss", "lsds"}


def test_the_best_checkpoint_is_kept(tmp_path: Path, volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [5.0, 3.0, 4.0, 2.0, 2.0, 2.5])
    folder = network(tmp_path / "d/n", volume, checkpoint_every=5)
    train(folder, volume, 6)
    assert checkpoints.iterations(folder) == [4, 5, 6]
    assert not list((folder / "checkpoints").glob("*checkpoint_2*"))
    told = json.loads(manifest_path(folder / "checkpoints/checkpoint_6.pt").read_text())["validation"]
    assert told.pop("measured_on")
    assert told == {"best_iteration": 4, "best_loss": 2.0, "without_gain": 2}


def test_an_early_end_has_the_best_weights(tmp_path: Path, volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [5.0, 3.0, 2.95, 3.2, 1.0, 1.0, 1.0, 1.0])
    patient = {"patience": 2, "least_change": 0.1}
    folder = network(tmp_path / "a/d/n", volume, validation=patient, average=0.9)
    best = train(folder, volume, 8)
    assert [row["iteration"] for row in read_losses(folder / "log/validation.csv")] == [1, 2, 3, 4]
    assert checkpoints.iterations(folder) == [2, 8]
    expected = train(network(tmp_path / "b/d/n", volume, average=0.9), volume, 2, "training.validation=null")
    assert all(torch.equal(best[name], expected[name]) for name in expected)
    assert checkpoints.load(folder, load_network(folder)).provenance["validation"]["best_iteration"] == 2


@pytest.mark.parametrize("killed_at", [1, 3, 4])
def test_a_resumed_run_ends_as_one_that_was_never_stopped(
    tmp_path: Path, volume: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    scripted(monkeypatch, [5.0, 3.0, 4.0, 2.0, 3.0, 3.0, 3.0, 1.0])
    settings = {"validation": {"patience": 3}, "average": 0.9}
    folders = [network(tmp_path / f"{name}/d/n", volume, **settings) for name in "ab"]
    train(folders[0], volume, 8)
    train(folders[1], volume, killed_at)
    train(folders[1], volume, 8)
    files = [(folder / "checkpoints/checkpoint_8.pt").read_bytes() for folder in folders]
    assert files[0] == files[1]
    tables = [(folder / "log/validation.csv").read_bytes() for folder in folders]
    assert tables[0] == tables[1]


def test_another_loss_begins_another_comparison(tmp_path: Path, volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [1.0, 1.0, 9.0, 8.0])
    monkeypatch.setattr("emsuite.training.validation.Validator.validate", _noting)
    heads = {"affs": AFFS | {"switch_to": {"iteration": 2, "loss": "mae"}}}
    folder = network(tmp_path / "d/n", volume, heads, validation={"patience": 2})
    train(folder, volume, 4)
    told = checkpoints.load(folder, load_network(folder)).provenance["validation"]
    assert told.pop("measured_on")
    assert told == {"best_iteration": 4, "best_loss": 8.0, "without_gain": 0}


def _noting(self: Validator, state: Any) -> dict[str, float]:
    loss = [1.0, 1.0, 9.0, 8.0][state.iteration - 1]
    self._note(state, loss)
    return {"loss": loss, "affs": loss}


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path, volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [float("nan")])
    with pytest.raises(RunFailed, match="the validation loss is nan at iteration 1"):
        train(network(tmp_path / "d/n", volume), volume, 1)


def test_processes_share_the_samples(tmp_path: Path, volume: Path) -> None:
    """Two processes and one give the same table."""
    alone, shared = (
        network(tmp_path / f"{name}/d/n", volume, validation={"every": 2}, batch_size=2) for name in ("alone", "shared")
    )
    train(alone, volume, 2)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
               str(ROOT / "02_train/train.py"), str(shared), "--data", f"{volume}{TRAIN}", "--iterations", "2",
               "--device", "cpu"]  # fmt: skip
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (one,), (two,) = (read_losses(folder / "log/validation.csv") for folder in (alone, shared))
    assert one == pytest.approx(two, rel=1e-5)


def test_held_out_volumes_that_are_none(tmp_path: Path, volume: Path) -> None:
    folder = network(tmp_path / "d/n", volume, validation={"data": [f"{volume}@0:200,:,:"]})
    with pytest.raises(BadInput, match="held out for validation and trained on; expected other parts of it"):
        train(folder, volume, 1)
    config = load_network(folder)
    loaded = load_training_data(config, [f"{volume}{TRAIN}"], folder)
    with pytest.raises(BadInput, match="needs held-out volumes"):
        trainer.train(folder, config, loaded, 1, CPU)
    of_data_set = load_network(folder, ["training.validation.data=[]"])
    (tmp_path / "01_data/datasets").mkdir(parents=True)
    (tmp_path / "01_data/datasets/d.yaml").write_text(
        "name: d\ntitle: D\nvoxel_size: [10, 10, 10]\nbucket: b\nprefix: p\nvolumes: [v]\ndefault_volumes: [v]\n"
        "split:\n  train: [{volume: v, roi: '0:140,:,:'}]\n  test: [{volume: v, roi: '140:280,:,:'}]\n"
    )
    with pytest.raises(BadInput, match=r"data/p/v.zarr: no held-out volume of d is there"):
        load_held_out(of_data_set, tmp_path, loaded)
    two_neurons(tmp_path / "data/p/v.zarr")
    (held_out,) = load_held_out(of_data_set, tmp_path, loaded)
    assert held_out.labels is not None
    assert held_out.labels.shape == (14, 28, 28)


def test_a_checkpoint_that_somebody_asked_for_stays(
    tmp_path: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one of an earlier call, and a milestone of an earlier `checkpoint_every`, though each was the best."""
    scripted(monkeypatch, [5.0, 4.0, 3.0, 2.0, 1.5, 1.0, 0.9, 0.8])
    ended = network(tmp_path / "a/d/n", volume)
    train(ended, volume, 4)
    train(ended, volume, 8)
    assert checkpoints.iterations(ended) == [4, 8]
    milestone = network(tmp_path / "b/d/n", volume, checkpoint_every=3)
    train(milestone, volume, 4)
    train(milestone, volume, 8, "training.checkpoint_every=100")
    assert checkpoints.iterations(milestone) == [3, 4, 8]


@pytest.mark.parametrize("changed", ["raw", "samples", "labels"])
def test_losses_on_other_samples_are_not_compared(
    tmp_path: Path, volume: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, changed: str
) -> None:
    scripted(monkeypatch, [1.0, 1.0, 9.0, 8.0, 8.5])
    other = two_neurons(tmp_path / "w.zarr")
    folder = network(tmp_path / "d/n", volume, validation={"data": [f"{other}{HELD_OUT}"]})
    train(folder, volume, 2)
    if changed == "labels":
        labels = open_volume(other / "volumes/labels/neuron_ids", "r+")
        labels.write(labels.roi, labels.read() + 1)
    if changed == "raw":
        raw = open_volume(other / "volumes/raw", "r+")
        raw.write(raw.roi, 255 - raw.read())
    option = "training.validation.samples=4" if changed == "samples" else "training.log_every=1"
    with caplog.at_level("INFO"):
        train(folder, volume, 5, option)
    told = checkpoints.load(folder, load_network(folder)).provenance["validation"]
    assert (told["best_iteration"], told["best_loss"], told["without_gain"]) == (4, 8.0, 1)
    assert "other held-out samples" in caplog.text


def test_settings_that_end_training_count_as_what_it_was_trained_with(
    tmp_path: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [5.0, 3.0, 4.0, 4.0, 1.0, 1.0])
    folder = network(tmp_path / "d/n", volume, validation={"patience": 2})
    train(folder, volume, 6)
    train(folder, volume, 6)  # the same: nothing to do
    for change in ("training.validation=null", "training.validation.patience=5", "training.validation.every=2"):
        with pytest.raises(BadInput, match=r"trained with other settings or data: training\.validation"):
            train(folder, volume, 6, change)
    plain = network(tmp_path / "e/n", volume)
    train(plain, volume, 2)
    train(plain, volume, 2, "training.validation.every=2")  # without patience it changes no weight


def test_other_held_out_voxels_count_where_they_end_training(
    tmp_path: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [5.0, 3.0, 2.0, 1.0])
    other = two_neurons(tmp_path / "w.zarr")
    folder = network(tmp_path / "d/n", volume, validation={"patience": 2, "data": [f"{other}{HELD_OUT}"]})
    train(folder, volume, 2)
    labels = open_volume(other / "volumes/labels/neuron_ids", "r+")
    labels.write(labels.roi, labels.read() + 1)
    with pytest.raises(BadInput, match="held-out w: labels changed"):
        train(folder, volume, 4)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_more_iterations_than_configured_stretch_a_falling_rate(tmp_path: Path, volume: Path, schedule: str) -> None:
    """They would train at a rate of 0. A finished run was trained with another rate."""
    folder = network(tmp_path / "d/n", volume, optimizer={"learning_rate": 0.003, "schedule": schedule})
    train(folder, volume, 9)
    rates = [row["learning_rate"] for row in read_losses(folder / "log/losses.csv")]
    assert min(rates[:-1]) > 0
    assert rates == sorted(rates, reverse=True)
    with pytest.raises(BadInput, match=r"training\.iterations 9 -> 12"):
        train(folder, volume, 12)
    short = network(tmp_path / "e/n", volume, optimizer={"learning_rate": 0.003, "schedule": schedule})
    train(short, volume, 3)
    train(short, volume, 6)  # the rate falls to its end at 6 in both
