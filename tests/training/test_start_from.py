"""Training that begins with given weights: whole, in part, frozen; the record, a resume, what does not fit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from emsuite.common.errors import BadInput
from emsuite.common.outputs import manifest_path
from emsuite.common.state.origins import identity_of
from emsuite.config.network import load_network
from emsuite.config.trained_with import IfChanged
from emsuite.training import checkpoint as checkpoints
from emsuite.training import trainer
from emsuite.training.resume import start
from emsuite.training.volumes import load_training_data
from small_training import AFFS, CPU, LSDS, two_neurons, write_network


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_neurons(tmp_path_factory.mktemp("volume") / "v.zarr")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, volume: Path) -> Path:
    """A trained network of LSDs."""
    folder = write_network(tmp_path_factory.mktemp("first") / "d/first", {"lsds": LSDS})
    train(folder, volume, 2)
    return folder


def train(
    folder: Path, volume: Path, until: int, *overrides: str, if_changed: IfChanged = "refuse"
) -> dict[str, torch.Tensor]:
    config = load_network(folder, overrides)
    trainer.train(folder, config, load_training_data(config, [str(volume)], folder), until, CPU, if_changed)
    return checkpoints.load(folder, config).weights


def begun(folder: Path, start_from: dict[str, Any], heads: dict | None = None) -> dict[str, torch.Tensor]:
    """The first weights of a network."""
    folder = write_network(folder, heads or {"lsds": LSDS}, training={"start_from": start_from, "average": 0.9})
    state = start(folder, load_network(folder), CPU)
    weights = dict(state.network.state_dict())
    assert all(torch.equal(state.averages["network"][name], weight) for name, weight in weights.items())
    return weights


def test_whole_or_by_prefix(tmp_path: Path, first: Path) -> None:
    given = checkpoints.load(first, load_network(first)).weights
    whole = begun(tmp_path / "d/whole", {"checkpoint": str(first)})
    assert all(torch.equal(whole[name], given[name]) for name in given)
    file = {"checkpoint": str(first / "checkpoints/checkpoint_2.pt"), "prefixes": ["unet."]}
    part = begun(tmp_path / "d/part", file, {"affs": AFFS})
    assert {name for name in part if name in given and torch.equal(part[name], given[name])} == {
        name for name in given if name.startswith("unet.")
    }
    assert {name.split(".")[1] for name in part if name.startswith("heads.")} == {"affs"}


def test_frozen_layers_stay_and_the_record_outlives_the_file(tmp_path: Path, first: Path, volume: Path) -> None:
    given = checkpoints.load(first, load_network(first)).weights
    copy = tmp_path / "given.pt"
    copy.write_bytes((first / "checkpoints/checkpoint_2.pt").read_bytes())
    training = {"start_from": {"checkpoint": "../../given.pt", "frozen": ["unet."]}, "average": 0.9}
    straight = train(write_network(tmp_path / "a/d/n", {"lsds": LSDS}, training=training | {
        "start_from": {"checkpoint": "../../../given.pt", "frozen": ["unet."]}}), volume, 4)  # fmt: skip
    changed = {name for name in given if not torch.equal(straight[name], given[name])}
    assert changed == {name for name in given if name.startswith("heads.")}
    folder = write_network(tmp_path / "d/n", {"lsds": LSDS}, training=training)
    train(folder, volume, 2)
    copy.unlink()
    resumed = train(folder, volume, 4)
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)
    told = json.loads(manifest_path(folder / "checkpoints/checkpoint_4.pt").read_text())
    saved = checkpoints.load(folder, load_network(folder)).provenance["start_from"]
    assert saved == {
        "checkpoint": "given.pt",
        "iteration": 2,
        "digest": checkpoints.digest(given),
        "weights": len(given),
    }
    assert told["start_from"] == saved


def test_other_weights_to_begin_with_are_told(tmp_path: Path, first: Path, volume: Path) -> None:
    """Weights of other content are other weights, under any name: those taken count, so that other heads do not."""
    other = write_network(tmp_path / "d/other", {"lsds": LSDS})
    train(other, volume, 3)
    given, newest = tmp_path / "given.pt", first / "checkpoints/checkpoint_2.pt"
    given.write_bytes(newest.read_bytes())
    start_from = {"checkpoint": "../../given.pt", "prefixes": ["unet."]}
    folder = write_network(tmp_path / "d/n", {"lsds": LSDS}, training={"start_from": start_from})
    train(folder, volume, 2)
    given.write_bytes((other / "checkpoints/checkpoint_3.pt").read_bytes())
    told = r"other weights to begin with \(training.start_from\), iteration 2 -> 3; choose one: --if-changed continue"
    for until in (2, 4):
        with pytest.raises(BadInput, match=told):
            train(folder, volume, until)
    train(folder, volume, 2, if_changed="keep")
    train(folder, volume, 3, if_changed="continue")
    train(folder, volume, 4)
    records = checkpoints.load(folder, load_network(folder)).trained_with
    assert [(record["from"], record["start_from"]["iteration"]) for record in records] == [(0, 2), (2, 3)]
    content = torch.load(newest, weights_only=False)
    content["networks"]["network"]["heads.lsds.weight"] += 1
    torch.save(content, given)
    with pytest.raises(BadInput, match=r"begin with \(training.start_from\), iteration 3 -> 2"):
        train(folder, volume, 4)
    made_from = json.loads(manifest_path(folder / "checkpoints/checkpoint_4.pt").read_text())["made_from"]
    given.write_bytes((other / "checkpoints/checkpoint_3.pt").read_bytes())
    assert made_from["start_from"] == identity_of(given)
    given.unlink()
    train(folder, volume, 5)
    records = checkpoints.load(folder, load_network(folder)).trained_with
    assert [record["start_from"]["iteration"] for record in records] == [2, 3], "known though the file is gone"
    given.write_bytes(b"damaged")
    train(folder, volume, 5)


def test_norms_of_frozen_layers_keep_their_statistics(tmp_path: Path, volume: Path) -> None:
    first = write_network(tmp_path / "d/first", {"lsds": LSDS})
    given = train(first, volume, 1, "unet.norm=batch")
    start_from = {"checkpoint": "../first", "frozen": ["unet.layer_0_left"]}
    folder = write_network(tmp_path / "d/n", {"lsds": LSDS}, training={"start_from": start_from})
    weights = train(folder, volume, 2, "unet.norm=batch")
    kept = {name for name in given if torch.equal(weights[name], given[name])}
    assert kept == {name for name in given if name.startswith("unet.layer_0_left")}


@pytest.mark.parametrize(("start_from", "message"), [
    ({"checkpoint": "nowhere"}, "no such file; expected a checkpoint for training.start_from"),
    ({"checkpoint": "."}, "has no checkpoint, expected one"),
    ({"checkpoint": "FIRST", "prefixes": ["encoder."]}, "has no weights 'encoder....', which training.start_from"),
    ({"checkpoint": "FIRST", "frozen": ["encoder."]}, "no weights of n begin with 'encoder.'"),
    ({"checkpoint": "FIRST", "frozen": ["unet.", "heads."]}, "no weights are left to train"),
])  # fmt: skip
def test_what_does_not_fit_is_one_line(tmp_path: Path, first: Path, start_from: dict, message: str) -> None:
    given = start_from | ({"checkpoint": str(first)} if start_from["checkpoint"] == "FIRST" else {})
    with pytest.raises(BadInput, match=message):
        begun(tmp_path / "d/n", given)


def test_a_head_that_the_checkpoint_lacks_is_named(tmp_path: Path, first: Path) -> None:
    with pytest.raises(BadInput, match=r"its weights do not fit the network: 'heads.affs.bias' is missing"):
        begun(tmp_path / "d/n", {"checkpoint": str(first)}, {"affs": AFFS, "lsds": LSDS})
