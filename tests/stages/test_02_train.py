"""train.py and describe.py as their users call them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import builders
from builders import ROOT
from emsuite.config.network import load_network
from emsuite.io.volume import open_volume
from emsuite.training import checkpoint as checkpoints
from emsuite.training.log import read_losses
from emsuite.training.volumes import load_training_data
from small_training import end_after_three_checkpoints

TRAIN, DESCRIBE = "02_train/train.py", "02_train/describe.py"
SIZE = (10, 10, 10)


def write_network(folder: Path, **training: Any) -> Path:
    """A network that trains in milliseconds, with these keys of `training`."""
    return builders.write_network(folder, training=training)


def write_volume(path: Path, grey: int | None = None) -> Path:
    """Two neurons; every voxel of raw is `grey`, or tells its section."""
    raw = np.full((28, 28, 28), grey or 0, np.uint8)
    if grey is None:
        raw += np.arange(28, dtype=np.uint8)[:, None, None]
    labels = np.ones(raw.shape, np.uint64)
    labels[:, :, 14:] = 2
    for name, array in {"raw": raw, "labels/neuron_ids": labels}.items():
        builders.write_array(path / "volumes" / name, array, SIZE)
    return path


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return write_network(tmp_path / "d/n")


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return write_volume(tmp_path / "v.zarr")


def weights(network: Path) -> dict[str, torch.Tensor]:
    return checkpoints.load(network, load_network(network)).weights


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def greys(network: Path) -> set[float]:
    """Raw in the middle of the outputs that snapshots show."""
    return {float(open_volume(path / "raw").read()[10, 10, 10]) for path in network.glob("snapshots/*.zarr")}


def manifest(network: Path, iteration: int) -> dict[str, Any]:
    return json.loads((network / f"checkpoints/checkpoint_{iteration}.pt.manifest.json").read_text())


def snapshots(network: Path) -> set[str]:
    return {path.name for path in (network / "snapshots").iterdir()}


def test_the_first_batch_of_every_run_is_a_snapshot_and_can_be_viewed_as_the_help_says(
    call_script: Callable, tmp_path: Path
) -> None:
    folder = write_network(tmp_path / "02_train/fib25/mtlsd")
    volume = write_volume(tmp_path / "v.zarr")
    for until, expected in ((2, {"batch_1.zarr"}), (4, {"batch_1.zarr", "batch_3.zarr"})):
        assert call_script(TRAIN, folder, "--data", volume, "--iterations", until).code == 0
        assert snapshots(folder) == expected
    example = call_script("02_train/view_batch.py", "--help").out.partition("Example:")[2]
    (shown,) = re.findall(r"view_batch.py -f (\S+)", example)
    assert open_volume(tmp_path / shown / "raw").shape == (20, 20, 20)


def test_it_saves_snapshots_and_logs_on_the_networks_cadence(call_script: Callable, tmp_path: Path) -> None:
    folder = write_network(tmp_path / "d/n", iterations=5, checkpoint_every=2, snapshot_every=3, log_every=2)
    ended = call_script(TRAIN, folder, "--data", write_volume(tmp_path / "v.zarr"))
    assert (ended.code, ended.out) == (0, "")
    assert "train d/n: 100% 5/5" in ended.err
    assert checkpoints.iterations(folder) == [2, 4, 5]
    assert snapshots(folder) == {"batch_1.zarr", "batch_3.zarr"}
    assert [row["iteration"] for row in read_losses(folder / "log/losses.csv")] == [1, 2, 4, 5]
    assert len(list((folder / "log").glob("events.out.tfevents.*"))) == 1
    assert {path.name for path in folder.iterdir()} == {"network.yaml", "checkpoints", "snapshots", "log"}


def test_inside_a_networks_folder_the_folder_may_be_left_out(
    call_script: Callable, network: Path, volume: Path
) -> None:
    assert call_script(TRAIN, "--data", Path("../../v.zarr"), "--iterations", 1, cwd=network).code == 0
    assert checkpoints.iterations(network) == [1]


def test_a_trained_network_says_so(call_script: Callable, network: Path, volume: Path) -> None:
    assert call_script(TRAIN, network, "--data", volume).code == 0
    before = {path: path.read_bytes() for path in network.rglob("*") if path.is_file()}
    ended = call_script(TRAIN, network, "--data", volume)
    assert ended.code == 0
    assert f"{network} is at iteration 2 already: nothing to do\n" in ended.err
    assert before == {path: path.read_bytes() for path in network.rglob("*") if path.is_file()}


def test_fewer_iterations_than_trained_take_the_checkpoint_if_it_is_there(
    call_script: Callable, volume: Path, tmp_path: Path
) -> None:
    network = write_network(tmp_path / "d/n", iterations=5, checkpoint_every=2)
    assert call_script(TRAIN, network, "--data", volume).code == 0
    (network / "checkpoints/checkpoint_2.pt.manifest.json").unlink()
    assert call_script(TRAIN, network, "--data", volume, "--iterations", 2).code == 0
    assert manifest(network, 2)["iteration"] == 2
    ended = call_script(TRAIN, network, "--data", volume, "--iterations", 3)
    assert (ended.code, ended.err) == (2, f"error: {network}: no checkpoint of iteration 3; it has 2, 4, 5\n")


def set_rate(network: Path, rate: float) -> None:
    content = yaml.safe_load((network / "network.yaml").read_text())
    content["training"] |= {"optimizer": {"learning_rate": rate}}
    (network / "network.yaml").write_text(yaml.safe_dump(content))


RATE = "training.optimizer.learning_rate 5e-05 -> 0.5"


@pytest.mark.parametrize("until", [2, 4])
def test_a_checkpoint_of_other_settings_is_not_already_there(
    call_script: Callable, network: Path, volume: Path, until: int
) -> None:
    """Neither as the last one, nor to go on from: the user chooses."""
    assert call_script(TRAIN, network, "--data", volume).code == 0
    set_rate(network, 0.5)
    before = {path: path.read_bytes() for path in network.rglob("*") if path.is_file()}
    ended = call_script(TRAIN, network, "--data", volume, "--iterations", until)
    assert ended.code == 2
    path = network / "checkpoints/checkpoint_2.pt"
    assert ended.err.startswith(f"error: {path}: was trained with other settings or data: {RATE}; choose one: ")
    for choice in ("--if-changed continue", "runs/NAME", "--if-changed keep"):
        assert choice in ended.err
    assert before == {path: path.read_bytes() for path in network.rglob("*") if path.is_file()}


def test_the_user_goes_on_with_other_settings(call_script: Callable, network: Path, volume: Path) -> None:
    assert call_script(TRAIN, network, "--data", volume).code == 0
    set_rate(network, 0.5)
    ended = call_script(TRAIN, network, "--data", volume, "--if-changed", "continue")
    assert ended.code == 2
    assert "continue is not possible without iterations left to train" in ended.err
    ended = call_script(TRAIN, network, "--data", volume, "--iterations", 3, "--if-changed", "continue")
    assert ended.code == 0
    assert f"going on with other settings or data: {RATE}\n" in ended.err
    history = checkpoints.load(network, load_network(network)).trained_with
    rates = [(each["from"], each["settings"]["training"]["optimizer"]["learning_rate"]) for each in history]
    assert rates == [(0, 5e-5), (2, 0.5)]
    assert call_script(TRAIN, network, "--data", volume, "--iterations", 4).code == 0, "these settings are its own now"
    assert call_script(TRAIN, network, "--data", volume, "--iterations", 2).code == 2, "that one is of the old ones"


def test_the_user_keeps_a_checkpoint_of_other_settings(call_script: Callable, network: Path, volume: Path) -> None:
    assert call_script(TRAIN, network, "--data", volume).code == 0
    before = (network / "checkpoints/checkpoint_2.pt").read_bytes()
    set_rate(network, 0.5)
    ended = call_script(TRAIN, network, "--data", volume, "--if-changed", "keep")
    assert ended.code == 0
    assert f"kept, trained with other settings or data: {RATE}\n" in ended.err
    assert (network / "checkpoints/checkpoint_2.pt").read_bytes() == before
    ended = call_script(TRAIN, network, "--data", volume, "--iterations", 3, "--if-changed", "keep")
    assert ended.code == 2
    assert "keep is not possible before its last iteration" in ended.err


def test_the_user_starts_anew_in_a_run_folder(call_script: Callable, network: Path, volume: Path) -> None:
    assert call_script(TRAIN, network, "--data", volume).code == 0
    before = (network / "checkpoints/checkpoint_2.pt").read_bytes()
    set_rate(network, 0.5)
    run = network / "runs/fast"
    assert call_script(TRAIN, run, "--data", volume).code == 0
    assert checkpoints.iterations(run) == [2]
    assert {path.name for path in run.iterdir()} == {"checkpoints", "log", "snapshots"}
    assert (network / "checkpoints/checkpoint_2.pt").read_bytes() == before
    assert manifest(run, 2)["settings"]["training"]["optimizer"]["learning_rate"] == 0.5


@pytest.mark.parametrize("array", ["raw", "labels/neuron_ids"])
def test_a_checkpoint_of_other_data_is_not_already_there(
    call_script: Callable, network: Path, volume: Path, array: str
) -> None:
    assert call_script(TRAIN, network, "--data", volume).code == 0
    stored = open_volume(volume / "volumes" / array, "r+").array
    stored[3, 4, 5] = 9
    ended = call_script(TRAIN, network, "--data", volume, "--iterations", 4)
    assert ended.code == 2
    assert f"was trained with other settings or data: v: {array.partition('/')[0]} changed; choose" in ended.err
    assert call_script(TRAIN, network, "--data", volume, "--iterations", 4, "--if-changed", "continue").code == 0
    manifests = [json.loads((network / f"checkpoints/checkpoint_{n}.pt.manifest.json").read_text()) for n in (2, 4)]
    assert ["continued_with_other_data" in manifest for manifest in manifests] == [False, True]


def test_edits_outside_the_region_and_a_mask_of_ones_are_no_change(
    call_script: Callable, network: Path, volume: Path
) -> None:
    region = f"{volume}@0:200,:,:"
    assert call_script(TRAIN, network, "--data", region).code == 0
    open_volume(volume / "volumes/labels/neuron_ids", "r+").array[25, 4, 5] = 9
    builders.write_array(volume / "volumes/labels/labels_mask", np.ones((28, 28, 28), np.uint8), SIZE)
    for stream in ("false", "true"):
        ended = call_script(TRAIN, network, "--data", region, "--set", f"training.stream={stream}")
        assert ended.code == 0, ended.err
    assert call_script(TRAIN, network, "--data", volume).code == 2, "another region is other data"


def test_another_seed_is_another_training(call_script: Callable, network: Path, volume: Path) -> None:
    assert call_script(TRAIN, network, "--data", volume).code == 0
    ended = call_script(TRAIN, network, "--data", volume, "--seed", 7)
    assert ended.code == 2
    assert "training.sampling.seed 0 -> 7" in ended.err


def test_other_code_is_told(
    call_script: Callable, network: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for code, told in (("abc", False), ("abc", False), ("def", True)):
        monkeypatch.setattr("emsuite.training.trainer.git_commit", lambda code=code: code)
        ended = call_script(TRAIN, network, "--data", volume)
        assert ended.code == 0
        assert ("was trained by code abc, now def" in ended.err) == told


@pytest.mark.parametrize("known", [True, False])
def test_checkpoints_of_earlier_versions_are_taken(
    call_script: Callable, network: Path, volume: Path, known: bool
) -> None:
    """They tell the settings in their provenance, or nothing, as converted ones."""
    assert call_script(TRAIN, network, "--data", volume).code == 0
    path = network / "checkpoints/checkpoint_2.pt"
    content = torch.load(path, weights_only=True)
    del content["trained_with"]
    if not known:
        content["provenance"] = {}
    torch.save(content, path)
    assert call_script(TRAIN, network, "--data", volume).code == 0
    set_rate(network, 0.5)
    ended = call_script(TRAIN, network, "--data", volume)
    assert ended.code == (2 if known else 0)
    assert (RATE if known else f"{path}: does not tell what it was trained with; taken as it is") in ended.err


def test_it_goes_on_where_it_stood(call_script: Callable, network: Path, volume: Path, tmp_path: Path) -> None:
    assert call_script(TRAIN, network, "--data", volume, "--iterations", 2).code == 0
    ended = call_script(TRAIN, network, "--data", volume, "--iterations", 4)
    assert ended.code == 0
    assert f"{network}: going on from iteration 2\n" in ended.err
    straight = write_network(tmp_path / "e/n")
    assert call_script(TRAIN, straight, "--data", volume, "--iterations", 4).code == 0
    assert same(weights(network), weights(straight))


def test_several_volumes(call_script: Callable, network: Path, tmp_path: Path) -> None:
    black, white = write_volume(tmp_path / "black.zarr", 0), write_volume(tmp_path / "white.zarr", 255)
    options = ["--data", black, "--data", white, "--iterations", 12, "--set", "training.snapshot_every=1"]
    assert call_script(TRAIN, network, *options).code == 0
    assert list(manifest(network, 12)["private"]["inputs"].values()) == [str(black), str(white)]
    assert greys(network) == {0, 1}
    again = write_network(tmp_path / "e/n")
    assert call_script(TRAIN, again, *options, "--set", "training.sampling.probabilities=[0, 1]").code == 0
    assert greys(again) == {1}


def test_a_region_of_a_volume(call_script: Callable, network: Path, volume: Path) -> None:
    """Outputs lie inside it, inputs reach out of it."""
    options = ["--iterations", 12, "--set", "training.snapshot_every=1"]
    assert call_script(TRAIN, network, "--data", f"{volume}@140:200,:,:", *options).code == 0
    sections = [
        (open_volume(path / "raw").read()[:, 10, 10] * 255).round() for path in network.glob("snapshots/*.zarr")
    ]
    outputs = np.array([raw[8:12] for raw in sections])
    assert (outputs.min(), outputs.max()) == (14, 19)
    assert min(raw.min() for raw in sections) < 14


def test_seeds(call_script: Callable, volume: Path, tmp_path: Path) -> None:
    made = []
    for index, options in enumerate(([], ["--seed", 0], ["--seed", 3], ["--set", "training.sampling.seed=3"])):
        folder = write_network(tmp_path / f"{index}/n")
        assert call_script(TRAIN, folder, "--data", volume, *options).code == 0
        assert manifest(folder, 2)["seed"] == (0 if index < 2 else 3)
        made.append(weights(folder))
    assert same(made[0], made[1])
    assert same(made[2], made[3])
    assert not same(made[0], made[2])


def test_any_key_can_be_set(call_script: Callable, network: Path, volume: Path) -> None:
    options = ["--set", "training.batch_size=2", "--set", "unet.num_fmaps=3", "--set", "training.iterations=1"]
    assert call_script(TRAIN, network, "--data", volume, *options).code == 0
    settings = manifest(network, 1)["settings"]
    assert (settings["training"]["batch_size"], settings["unet"]["num_fmaps"]) == (2, 3)
    saved = checkpoints.load(network, load_network(network, ["unet.num_fmaps=3"]))
    assert saved.weights["unet.layer_0_left_0.weight"].shape == (3, 1, 3, 3, 3)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a data set of its own, two volumes of three to train on, one of them in part."""
    root = tmp_path / "project"
    for script in (TRAIN, DESCRIBE):
        (root / script).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / script, root / script)
    (root / "01_data/datasets").mkdir(parents=True)
    split = {"train": [{"volume": "a"}, {"volume": "b", "roi": "140:,:,:"}], "test": [{"volume": "c"}]}
    content = {"name": "d", "voxel_size": [*SIZE], "volumes": ["a", "b", "c"], "split": split}
    (root / "01_data/datasets/d.yaml").write_text(yaml.safe_dump(content))
    write_network(root / "02_train/d/n")
    return root


def test_without_data_the_split_of_the_data_set(call_script: Callable, project: Path) -> None:
    folder = project / "02_train/d/n"
    where = project / "data/funke/d/training"
    ended = call_script(project / TRAIN, folder)
    assert ended.code == 2
    assert ended.err == (
        f"error: {where}/a.zarr: no volume of d to train on is there; fetch one, or name one with --data\n"
    )
    write_volume(where / "c.zarr")
    assert call_script(project / TRAIN, folder).code == 2, "a volume to test on is none to train on"
    write_volume(where / "b.zarr")
    assert call_script(project / TRAIN, folder).code == 0
    assert list(manifest(folder, 2)["private"]["inputs"].values()) == [f"{where}/b.zarr"]
    write_volume(where / "a.zarr")
    volumes = load_training_data(load_network(folder), [], project)
    assert [tuple(loaded.labels.shape) for loaded in volumes] == [(28, 28, 28), (14, 28, 28)]
    assert [tuple(loaded.labels_offset) for loaded in volumes] == [(0, 0, 0), (140, 0, 0)]


def test_a_split_by_its_name_with_its_probabilities(call_script: Callable, project: Path) -> None:
    file = project / "01_data/datasets/d.yaml"
    content = yaml.safe_load(file.read_text())
    parts = [{"volume": name, "probability": chance} for name, chance in zip("abc", (1, 0, 3), strict=True)]
    content["splits"] = {"first": content.pop("split"), "all": {"train": parts}}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    folder, where = project / "02_train/d/n", project / "data/funke/d/training"
    write_volume(where / "a.zarr", 10)
    write_volume(where / "c.zarr", 200)
    chosen = ["--set", "training.split=all", "--set", "training.snapshot_every=1"]
    ended = call_script(project / TRAIN, folder, "--iterations", 12, *chosen)
    assert ended.code == 0, ended.err
    assert "1 of 3 volumes to train on are missing, and left out: b" in ended.err
    record = manifest(folder, 12)
    assert record["settings"]["training"]["sampling"]["probabilities"] == [1, 3]
    assert [Path(given["path"]).stem for given in record["inputs"].values()] == ["a", "c"]
    greys = [open_volume(path / "raw").read().max() * 255 for path in folder.glob("snapshots/*.zarr")]
    assert sum(grey > 100 for grey in greys) > 6
    ended = call_script(project / TRAIN, folder, "--set", "training.split=none")
    assert ended.code == 2
    assert ended.err.startswith("error: data set d: no split 'none'; it has first, all: see training.split")


@pytest.mark.parametrize("stream", ["false", "true"])
def test_unlabelled_voxels_of_a_volume_without_a_mask_never_count(
    call_script: Callable, project: Path, stream: str
) -> None:
    """As the hemibrain's label uint64(-3), if nobody has made the masks."""
    unlabelled = 2**64 - 3
    file = project / "01_data/datasets/d.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"mask": {"unlabelled": [unlabelled]}}))
    volume = write_volume(project / "data/funke/d/training/a.zarr")
    labels = open_volume(volume / "volumes/labels/neuron_ids").read()
    labels[:, 12:] = unlabelled
    shutil.rmtree(volume / "volumes/labels")
    builders.write_array(volume / "volumes/labels/neuron_ids", labels, SIZE)
    heads = {"lsds": {"target": "lsds", "sigma": 20, "weights": "labelled"},
             "affs": {"target": "affinities", "neighborhood": [[0, -1, 0], [0, 0, -1]], "weights": "mask"}}  # fmt: skip
    folder = project / "02_train/d/n"
    shutil.rmtree(folder)
    builders.write_network(folder, heads=heads, training={"sampling": {"min_masked": 0.25}})
    chosen = ["--set", f"training.stream={stream}", "--set", "training.snapshot_every=1"]
    ended = call_script(project / TRAIN, folder, "--iterations", 8, *chosen)
    assert ended.code == 0, ended.err
    counted = 0
    for snapshot in folder.glob("snapshots/*.zarr"):
        shown = {name: open_volume(snapshot / name).read() for name in ("labels", "weights/lsds", "weights/affs")}
        is_nobodys = shown["labels"] == 0
        counted += int(is_nobodys.sum())
        assert len(np.unique(shown["labels"][~is_nobodys])) <= 2
        assert not shown["weights/lsds"][:, is_nobodys].any()
        assert not shown["weights/affs"][:, is_nobodys].any()
        assert shown["weights/affs"][:, ~is_nobodys].any()
    assert counted


@pytest.mark.slow
def test_as_users_of_the_originals_call_it(project: Path) -> None:
    write_volume(project / "data/funke/d/training/a.zarr")
    folder = project / "02_train/d/n"
    command = [sys.executable, "../../train.py", "--iterations", "3"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert checkpoints.iterations(folder) == [3]


@pytest.mark.slow
def test_a_killed_run_gives_the_weights_of_one_that_was_not(
    call_script: Callable, tmp_path: Path, volume: Path
) -> None:
    """Killed outright it goes on from its last checkpoint; asked to end, it saves one where it stands."""
    cadence = {"checkpoint_every": 10, "log_every": 7, "average": 0.9}
    options = ["--data", volume, "--iterations", 300, "--device", "cpu"]
    straight = write_network(tmp_path / "straight/n", **cadence)
    assert call_script(TRAIN, straight, *options).code == 0
    for number in (signal.SIGKILL, signal.SIGTERM):
        killed = write_network(tmp_path / f"{number.name}/n", **cadence)
        reached = end_after_three_checkpoints([sys.executable, ROOT / TRAIN, killed, *options], killed, number)
        assert 30 <= reached < 300
        ended = call_script(TRAIN, killed, *options)
        assert ended.code == 0
        assert f"going on from iteration {reached}\n" in ended.err
        assert same(weights(killed), weights(straight))
        averages = [checkpoints.load(folder, load_network(folder)).averaged for folder in (killed, straight)]
        assert same(*averages)
        losses = [
            [
                (row["iteration"], row["loss"])
                for row in read_losses(folder / "log/losses.csv")
                if not row["iteration"] % 7
            ]
            for folder in (killed, straight)
        ]
        assert losses[0] == losses[1]


# ---- describe.py


def described(text: str) -> dict[str, str]:
    """The rows below the table of layers."""
    return dict(row.split("  ", 1) for row in text.rsplit("\n\n", 1)[1].strip().splitlines())


def test_describe_tells_what_a_network_is(call_script: Callable) -> None:
    ended = call_script(DESCRIBE, ROOT / "02_train/zebrafinch/mtlsd")
    assert (ended.code, ended.err) == (0, "")
    facts = {name: value.strip() for name, value in described(ended.out).items()}
    assert facts["trainable parameters"] == "95,856,355"
    assert facts["receptive field"] == "(37, 213, 213) voxels, (740, 1917, 1917) nm"
    assert facts["stride"] == "(3, 27, 27)"
    assert facts["legal inputs"] == "(39, 214, 214) + multiples of the stride"
    assert facts["output"] == "input - (36, 212, 212)"
    assert facts["this input"] == "(84, 268, 268) -> (48, 56, 56)"
    assert facts["training step"].startswith("1,748.")  # GFLOP
    layers = [row.split() for row in ended.out.splitlines() if row.startswith(("unet.", "heads."))]
    assert ["unet.layer_0_right_1", "14", "48x56x56", "5,306"] in layers
    assert ["heads.affs", "3", "48x56x56", "45"] in layers
    assert sum(int(row[-1].replace(",", "")) for row in layers) == 95_856_355


def test_describe_of_another_input_from_inside_the_folder(call_script: Callable) -> None:
    folder = ROOT / "02_train/fib25/aclsd"
    ended = call_script(DESCRIBE, "--input-shape", "364,364,364", cwd=folder)
    assert ended.code == 0
    assert "(364, 364, 364) -> (152, 152, 152)" in described(ended.out)["this input"]
    assert described(ended.out)["frozen parameters"].strip().startswith("263,7")
    ended = call_script(DESCRIBE, "--input-shape", "365,364,364", cwd=folder)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: input shape (365, 364, 364): 365 along axis 0 does not fit the network; the")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("network", ["fib25/small", "fib25/mtlsd", "zebrafinch/acrlsd"])
def test_the_lines_of_a_description_agree(call_script: Callable, network: str) -> None:
    """What is called legal is taken, and the training input is legal."""
    facts = described(call_script(DESCRIBE, ROOT / "02_train" / network).out)
    shapes = {name: [[*map(int, shape.split(","))] for shape in re.findall(r"\(([\d, ]+)\)", text)]
              for name, text in facts.items()}  # fmt: skip
    (smallest,), (stride,), (given, _) = (shapes[name] for name in ("legal inputs", "stride", "this input"))
    assert all((n - s) % step == 0 and n >= s for n, s, step in zip(given, smallest, stride, strict=True))
    for factor in (0, 1):
        taken = [s + factor * step for s, step in zip(smallest, stride, strict=True)]
        ended = call_script(DESCRIBE, ROOT / "02_train" / network, "--input-shape", ",".join(map(str, taken)))
        assert (ended.code, ended.err) == (0, "")
    smaller = [s - step for s, step in zip(smallest, stride, strict=True)]
    if min(smaller) > 0:
        ended = call_script(DESCRIBE, ROOT / "02_train" / network, "--input-shape", ",".join(map(str, smaller)))
        assert ended.code == 2


@pytest.mark.parametrize("script", [TRAIN, DESCRIBE])
def test_help_ends_with_an_example(call_script: Callable, script: str) -> None:
    ended = call_script(script, "--help")
    assert ended.code == 0
    assert "Example:" in ended.out
    assert f"python {script} 02_train/" in ended.out
    assert os.linesep * 4 not in ended.out
