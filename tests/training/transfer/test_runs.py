"""Runs of domain transfer: a killed one gives the same bytes, several processes agree, what is wrong is told."""

import copy
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from builders import ROOT, files_in, write_array
from emsuite.common.errors import BadInput
from emsuite.config.network import load_network
from emsuite.io.volume import MASK, array_names, open_volume
from emsuite.training import checkpoint as checkpoints
from emsuite.training.log import read_losses
from emsuite.training.transfer import cyclegan
from emsuite.training.transfer.cyclegan import _rate
from emsuite.training.volumes import load_training_data
from emsuite.visualization.contents import snapshot_columns
from small_training import end_after_three_checkpoints
from small_transfer import run, two_domains, write_padded, write_valid

CPU = torch.device("cpu")
HEADS = ("mask", "contour", "distance")
EVERYTHING: dict[str, Any] = {
    "pool": 2,
    "heads_discriminator": {"kind": "patch", "width": 2, "layers": 1},
    "losses": {"pseudo_cycle": 2},
    "detach": ["labels"],
    "constant_iterations": 2,
}


def refused(folder: Path, *overrides: str) -> str:
    with pytest.raises(BadInput) as error:
        run(folder, 4, *overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("form", ["padded", "valid"])
def test_a_resumed_run_gives_the_same_bytes(tmp_path: Path, form: str) -> None:
    """With dropout, pools, a running average and validation."""
    training = {"average": 0.9, "validation": {"every": 2, "samples": 2}}
    for stops in ([4], [2, 4]):
        held_out = two_domains(tmp_path / "held")
        if form == "padded":
            dropout = {"generator": {"kind": "resnet", "width": 2, "blocks": 1, "dropout": 0.5}}
            folder = write_padded(
                tmp_path / "n", EVERYTHING | dropout | {"held_out": held_out}, HEADS, training=training
            )
        else:
            networks = {"generator": {"kind": "valid_unet", "dims": 2, "width": 2}, "held_out": held_out, "pool": 1}
            folder = write_valid(tmp_path / "n", networks, training=training)
        for until in stops:
            run(folder, until)
        folder.rename(tmp_path / str(len(stops)))
    for file in ("checkpoints/checkpoint_4.pt", "log/validation.csv"):
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes()
    saved = checkpoints.read(tmp_path / "1/checkpoints/checkpoint_4.pt")
    assert saved.averages.keys() == {"a2b", "b2a"}
    assert saved.domains is not None
    assert saved.domains.keys() == {"a", "b"}
    assert {name: len(pool["images"]) for name, pool in saved.pools.items()} == dict.fromkeys(
        "ab", 2 if form == "padded" else 1
    )


KILLED = """
import os, signal, sys
from pathlib import Path
from torch.optim import Adam
from emsuite.training.transfer import cyclegan
from emsuite.training.transfer.image_pool import ImagePool
from small_training import end_after_three_checkpoints
from small_transfer import run

owner, name, last = {place}
plain, calls = getattr(owner, name), []

def killed(*arguments):
    result = plain(*arguments)
    calls.append(1)
    if len(calls) == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(owner, name, killed)
run(Path(sys.argv[1]), 4)
"""
PLACES = {  # of the third iteration
    "behind both backward passes": 'cyclegan, "_backward", 3',
    "between the two pools": 'ImagePool, "query", 5',
    "between the four optimizers": 'Adam, "step", 10',
}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_a_run_that_is_killed_within_an_iteration_gives_the_same_bytes(tmp_path: Path, place: str) -> None:
    """Pools, optimizers, statistics, averages and what drops out are those of the iteration that was saved."""
    keys = {"generator": {"kind": "resnet", "width": 2, "blocks": 1, "dropout": 0.5}, "pool": 1, "optimizers": "each"}
    folder, straight = tmp_path / "n", tmp_path / "straight"
    write_padded(folder, keys, ("mask",), training={"average": 0.9})
    run(folder, 4)
    folder.rename(straight)
    write_padded(folder, keys, ("mask",), training={"average": 0.9})
    code = KILLED.format(place=PLACES[place])
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": str(ROOT / "tests")})  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert checkpoints.iterations(folder) == [2]
    run(folder, 4)
    both = [each / "checkpoints/checkpoint_4.pt" for each in (folder, straight)]
    assert both[0].read_bytes() == both[1].read_bytes()
    saved = checkpoints.read(both[0])
    assert saved.optimizers.keys() == {"a2b", "b2a", "d_a", "d_b"}
    assert saved.pools.keys() == set(saved.domains or {}) == {"a", "b"}
    rows = [read_losses(each / "log/losses.csv") for each in (folder, straight)]
    assert [row["loss"] for row in rows[0]] == [row["loss"] for row in rows[1]]


@pytest.mark.slow
def test_a_run_that_is_killed_anywhere_goes_on(tmp_path: Path) -> None:
    """As users train: 02_train/train.py, and kill -9 from outside."""
    for name in ("killed", "straight"):
        write_valid(tmp_path / name, {"pool": 1}, training={"iterations": 100, "average": 0.9})
    command = [sys.executable, ROOT / "02_train/train.py", tmp_path / "killed", "--device", "cpu"]
    assert end_after_three_checkpoints(command, tmp_path / "killed", signal.SIGKILL) < 100
    for name in ("killed", "straight"):
        run(tmp_path / name, 100)
    both = [checkpoints.read(tmp_path / name / "checkpoints/checkpoint_100.pt") for name in ("killed", "straight")]
    for part in ("networks", "averages", "pools", "optimizers", "normalization"):
        assert flat(getattr(both[0], part)) == flat(getattr(both[1], part)), part


def flat(value: Any) -> Any:
    """Nested mappings with tensors as bytes, to compare."""
    if isinstance(value, dict):
        return {key: flat(item) for key, item in value.items()}
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else value


def test_the_log_names_every_loss(tmp_path: Path) -> None:
    folder = write_padded(tmp_path / "n", EVERYTHING, HEADS)
    run(folder, 1)
    (row,) = read_losses(folder / "log/losses.csv")
    names = ["adversarial_a2b", "adversarial_b2a", "cycle_a", "cycle_b", "identity_a", "identity_b", "pseudo_cycle"]
    names += [f"{head}_{where}" for head in (*HEADS, "heads") for where in ("synthesis", "reconstruction")]
    names += ["d_a", "d_b", "d_heads"]
    assert row.keys() == {"iteration", "loss", *names, "learning_rate", "seconds", "waiting"}
    weight = {"cycle_a": 10, "cycle_b": 10, "identity_a": 5, "identity_b": 5, "pseudo_cycle": 2}
    total = sum(weight.get(name, 1) * row[name] for name in names if not name.startswith("d_"))
    assert row["loss"] == pytest.approx(total, rel=1e-5)


def test_a_snapshot_shows_both_domains_on_their_way(tmp_path: Path) -> None:
    folder = write_padded(tmp_path / "n", {}, ("mask",))
    run(folder, 1)
    snapshot = folder / "snapshots/batch_1.zarr"
    names = {"a/raw", "a/fake_b", "a/reconstructed", "a/labels", "a/mask",
             "b/raw", "b/fake_a", "b/reconstructed", "b/mask"}  # fmt: skip
    assert set(array_names(snapshot)) == names
    raw = open_volume(snapshot / "a/raw").read()
    assert 20 / 255 - 1e-6 <= raw.min() <= raw.max() <= 200 / 255  # grey values as they were
    columns = [[layer.name for layer in column] for column in snapshot_columns(snapshot)]
    assert [{name[0] for name in column} for column in columns] == [{"a"}, {"b"}]


def test_panels_of_valid_networks_lie_in_each_other(tmp_path: Path) -> None:
    folder = write_valid(tmp_path / "n")
    run(folder, 1)
    snapshot = folder / "snapshots/batch_1.zarr"
    volumes = {name: open_volume(snapshot / name) for name in ("a/raw", "a/fake_b", "a/reconstructed")}
    assert [tuple(volume.shape) for volume in volumes.values()] == [(2, 74, 74), (2, 40, 40), (2, 6, 6)]
    assert [tuple(volume.offset) for volume in volumes.values()] == [(0, 0, 0), (0, 170, 170), (0, 340, 340)]


def test_the_rate_falls_as_by_epochs(tmp_path: Path) -> None:
    """1 - max(0, epoch + 1 - 100) / 101 of CycleGAN's 100 + 100 epochs, in iterations from 1 on."""
    config = load_network(write_padded(tmp_path / "n", {"constant_iterations": 100}, training={"iterations": 200}))
    rates = [_rate(config, iteration) for iteration in range(1, 201)]
    epochs = [0.01 * (1 - max(0, epoch + 1 - 100) / 101) for epoch in range(200)]
    np.testing.assert_allclose(rates, epochs, rtol=1e-12)
    assert config.rate_ends


def test_more_iterations_stretch_the_fall_and_others_are_refused(tmp_path: Path) -> None:
    folder = write_padded(tmp_path / "n", {"constant_iterations": 1})
    run(folder, 2)
    assert "training.iterations 4 -> 6" in refused(folder, "training.iterations=6")
    assert "transfer.pool 50 -> 3" in refused(folder, "transfer.pool=3")


def test_other_images_are_refused(tmp_path: Path) -> None:
    folder = write_padded(tmp_path / "n")
    run(folder, 2)
    raw = open_volume(tmp_path / "data/b.zarr/volumes/raw", "r+")
    raw.write(raw.roi, 255 - raw.read())
    assert "domain b: images changed" in refused(folder)


def test_supervised_records_know_nothing_of_transfer() -> None:
    config = load_network(ROOT / "02_train/fib25/small")
    assert "transfer" not in config.model_dump(mode="json")
    assert "transfer" not in config.architecture()
    assert config.unet is not None


BAD = [
    ({"transfer": {"domains": {"b": None}}}, "transfer.domains.b"),
    ({"step": "supervised"}, "expected `step: cyclegan` with `transfer`"),
    ({"unet": {"downsample_factors": [[2, 2, 2]]}}, "unet and transfer: expected one of them"),
    ({"training": {"input_shape": [2, 18, 16]}}, "18 along axis 1 does not fit"),
    ({"training": {"input_shape": [2, 8, 8]}}, "training.input_shape [2, 8, 8]: discriminator: an input of"),
    (
        {"heads": {"mask": {"target": "foreground"}}, "transfer": {"domains": {"a": {"volumes": [{}]}}}},
        "expected labels",
    ),
    ({"heads": {"image": {"target": "transferred", "loss": "mae"}}}, "transfer.losses, expected no loss"),
    ({"transfer": {"losses": {"pseudo_cycle": 2}}}, "transfer.losses.pseudo_cycle: expected heads beside image"),
    ({"normalization": {"method": "unit_range"}}, "normalization: does not apply to domain transfer"),
    ({"training": {"validation": {"every": 2}}}, "transfer.held_out and training.validation: expected both"),
    ({"transfer": {"generator": {"kind": "unit"}}}, "transfer.generator.kind: expected one of unet, "),
]


@pytest.mark.parametrize(("change", "told"), BAD, ids=[told[:40] for _, told in BAD])
def test_what_does_not_fit_is_told_in_one_line(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    folder = write_padded(tmp_path / "n")
    content = yaml.safe_load((folder / "network.yaml").read_text())
    (folder / "network.yaml").write_text(yaml.safe_dump(merged(content, change)))
    assert told in refused(folder)


def merged(base: Any, over: Any) -> Any:
    """`over` over `base`: mappings by key, lists of one by their element; {} takes labels away, None a key."""
    if isinstance(over, dict) and isinstance(base, dict):
        keys = {**base, **over}
        return {key: merged(base.get(key), over[key]) if key in over else base[key] for key in keys
                if key not in over or over[key] is not None}  # fmt: skip
    if over == [{}]:
        return [{"raw": base[0]["raw"]}]
    return copy.deepcopy(over)


def test_sections_that_come_one_by_one_teach_what_they_teach_together(tmp_path: Path) -> None:
    losses = []
    for accumulate in (1, 2):
        training = {"batch_size": 2, "accumulate": accumulate, "input_shape": [1, 32, 32]}
        folder = write_padded(tmp_path / str(accumulate), training=training)
        run(folder, 4)
        losses.append([row["loss"] for row in read_losses(folder / "log/losses.csv")])
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_labels_that_do_not_match_their_images(tmp_path: Path) -> None:
    folder = write_padded(tmp_path / "n", {}, ("mask",))
    other = two_domains(tmp_path / "smaller", (6, 40, 40))["a"]["volumes"][0]["labels"]
    text = (folder / "network.yaml").read_text()
    (folder / "network.yaml").write_text(text.replace(str(tmp_path / "data/a.zarr/volumes/labels/neuron_ids"), other))
    assert "expected all of a box of images" in refused(folder)


@pytest.mark.parametrize("shared", ["a", "b"])
def test_held_out_images_share_no_voxels_with_those_that_are_trained_on(tmp_path: Path, shared: str) -> None:
    domains = two_domains(tmp_path / "data")
    trained, held_out, wrong = (copy.deepcopy(domains) for _ in range(3))
    for parts, box in ((trained, ":,0:400,:"), (held_out, ":,400:800,:"), (wrong, ":,400:800,:")):
        for domain in parts.values():
            domain["volumes"][0]["boxes"] = [box]
    wrong[shared]["volumes"][0]["boxes"] = [":,400:600,:", ":,390:700,:"]
    training = {"validation": {"every": 2, "samples": 2}}
    run(write_padded(tmp_path / "n", {"domains": trained, "held_out": held_out}, training=training), 2)
    folder = write_padded(tmp_path / "w", {"domains": trained, "held_out": wrong}, training=training)
    assert f"transfer.held_out.{shared} shares voxels with transfer.domains, expected other boxes" in refused(folder)


def test_volumes_of_the_command_line_have_no_domain(tmp_path: Path) -> None:
    folder = write_padded(tmp_path / "n")
    config = load_network(folder)
    with pytest.raises(BadInput, match=r"--data cube.zarr: which domain is it\?"):
        load_training_data(config, ["cube.zarr"], tmp_path)


def test_two_processes_share_batches_and_pools(tmp_path: Path) -> None:
    """Two processes with a section each train as one with both does, up to rounding; a checkpoint holds all fakes."""
    for name in ("one", "two"):
        training = {"batch_size": 2, "iterations": 2, "input_shape": [1, 32, 32]}
        write_padded(tmp_path / name, {"pool": 3}, ("mask",), training=training)
    run(tmp_path / "one", 2)
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--rdzv-backend", "c10d", "--rdzv-conf",
               "store_type=file", "--nproc-per-node", "2", str(ROOT / "02_train/train.py"), str(tmp_path / "two"),
               "--device", "cpu"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (checkpoints.read(tmp_path / name / "checkpoints/checkpoint_2.pt") for name in ("one", "two"))
    for name, weights in one.networks.items():
        both = [torch.cat([tensor.flatten() for tensor in parts.values()]) for parts in (weights, two.networks[name])]
        assert ((both[0] - both[1]).abs() < 1e-3).double().mean() > 0.95  # Adam makes a step of a gradient near 0
    for name, pool in one.pools.items():
        torch.testing.assert_close(two.pools[name]["images"], pool["images"], rtol=1e-2, atol=1e-2)
    assert files_in(tmp_path / "two/snapshots")


def test_heads_are_not_judged_where_nobody_labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, shares, real = write_padded(tmp_path / "n", {}, HEADS), list[set[float]](), cyclegan.generator_losses

    def spy(translator: Any, a: Any, b: Any, images: Any, targets: Any) -> Any:
        shares.append({float((target.weights > 0).float().mean()) for target in targets.values()})
        return real(translator, a, b, images, targets)

    monkeypatch.setattr(cyclegan, "generator_losses", spy)
    run(folder, 2)
    assert all(share == {1.0} for share in shares)
    shares.clear()
    known = np.zeros((6, 80, 80), np.uint8)
    known[::2] = 1  # samples are two sections thick
    write_array(tmp_path / "data/a.zarr" / MASK, known, (10, 10, 10))
    run(write_padded(tmp_path / "masked", {}, HEADS), 2)
    assert all(share == {0.5} for share in shares)
