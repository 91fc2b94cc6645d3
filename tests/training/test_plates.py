"""Training on plates: it learns, resumes to the same bytes, validates on `val`, and refuses what does not fit."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from builders import lose_a_chunk
from emsuite.common.errors import BadInput
from emsuite.config.network import NetworkConfig, load_network
from emsuite.plates.statistics import read_statistics
from emsuite.training import checkpoint as checkpoints
from emsuite.training import trainer
from emsuite.training.log import read_losses
from emsuite.training.volumes import load_held_out, load_training_data, plate_folder, with_probabilities
from preprocessed_plate import HEADS, UNET, write_network, write_plate

CPU = torch.device("cpu")
DEEP = [3, 3, 3]
STACK = UNET | {"padding": "same_in_plane", "kernel_sizes_down": [[DEEP], [[1, 3, 3]]]}
VECTOR = {key: value for key, value in UNET.items() if key != "kernel_sizes_up"} | {"output": "vector"}


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plate(tmp_path_factory.mktemp("plate"))


def train(folder: Path, until: int, *overrides: str) -> dict[str, torch.Tensor]:
    config = with_probabilities(load_network(folder, overrides), [], folder)
    loaded = load_training_data(config, [], folder)
    trainer.train(folder, config, loaded, until, CPU, held_out=load_held_out(config, folder, loaded))
    return checkpoints.load(folder, config).weights


@pytest.mark.parametrize(
    "sections",
    [
        {"training": {"augment": [{"name": "mirror_transpose", "mirror": [1, 2], "transpose": [1, 2]}]}},
        {"unet": STACK, "training": {"input_shape": [3, 16, 16], "validation": {"every": 2, "samples": 2}}},
    ],
    ids=["2-D", "2.5-D, validated"],
)
def test_a_resumed_run_gives_the_same_bytes(tmp_path: Path, ready: Path, sections: dict) -> None:
    straight = write_network(tmp_path / "a/d/n", ready, **{**sections, "training": dict(sections["training"])})
    stopped = write_network(tmp_path / "b/d/n", ready, **sections)
    train(straight, 4)
    train(stopped, 2)
    train(stopped, 4)
    files = [folder / "checkpoints/checkpoint_4.pt" for folder in (straight, stopped)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("loss", "head", "final"),
    [
        ("mae", {}, "none"), ("mse", {"weights": "foreground"}, "none"), ("dssim", {}, "none"),
        ("ms_ssim", {"weights": "border_weights"}, "none"),
        ("kl", {"normalized": False, "target_channels": ["foreground"]}, "softmax"),
        ("bce", {"target_channels": ["foreground"]}, "none"),
        ("dice", {"target_channels": ["foreground"], "weights": "foreground"}, "sigmoid"),
    ],
)  # fmt: skip
def test_every_loss_trains(tmp_path: Path, ready: Path, loss: str, head: dict, final: str) -> None:
    heads = {"image": HEADS["image"] | {"loss": loss} | head}
    folder = write_network(tmp_path / "d/n", ready, heads=heads, unet=UNET | {"final_activation": final})
    train(folder, 2)
    assert all(-1e-3 < row["loss"] < 20 for row in read_losses(folder / "log/losses.csv"))


def test_the_loss_falls(tmp_path: Path, ready: Path) -> None:
    folder = write_network(tmp_path / "d/n", ready, training={"iterations": 60, "checkpoint_every": 60})
    train(folder, 60)
    rows = [row["loss"] for row in read_losses(folder / "log/losses.csv")]
    assert sum(rows[-10:]) < 0.8 * sum(rows[:10])


def test_the_checkpoint_records_the_statistics_of_preprocessing(tmp_path: Path, ready: Path) -> None:
    folder = write_network(tmp_path / "d/n", ready)
    train(folder, 2)
    recorded = checkpoints.load(folder, load_network(folder)).images
    assert recorded is not None
    assert (recorded["method"], recorded["scope"]) == ("z_score", "dataset")
    rows = [row for row in read_statistics(ready / "statistics.csv") if row.scope == "dataset"]
    assert recorded["channels"] == {
        name: [pytest.approx(row.mean), pytest.approx(row.std)]
        for name, row in zip(("phase", "nuclei", "membranes"), rows, strict=True)
    }


def test_validation_is_on_the_held_out_part_and_keeps_the_best(tmp_path: Path, ready: Path) -> None:
    folder = write_network(tmp_path / "d/n", ready, training={"validation": {"every": 1, "samples": 3}})
    config = load_network(folder)
    loaded = load_training_data(config, [], folder)
    held_out = load_held_out(config, folder, loaded)
    assert not {volume.name for volume in loaded} & {volume.name for volume in held_out}
    train(folder, 3)
    with open(folder / "log/validation.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 3


@pytest.mark.parametrize("method", ["z_score", "none", "percentile"])
def test_every_scope_and_method_trains(tmp_path: Path, method: str) -> None:
    ready = write_plate(tmp_path, normalize={"scope": "tile", "method": method})
    folder = write_network(tmp_path / "d/n", ready)
    train(folder, 2)


def test_a_network_to_a_vector_learns_the_mean(tmp_path: Path, ready: Path) -> None:
    folder = write_network(tmp_path / "d/n", ready, unet=VECTOR, training={"iterations": 40, "checkpoint_every": 40})
    train(folder, 40)
    rows = [row["loss"] for row in read_losses(folder / "log/losses.csv")]
    assert sum(rows[-10:]) < sum(rows[:10])


def test_other_voxels_or_settings_are_other_training(tmp_path: Path, ready: Path) -> None:
    folder = write_network(tmp_path / "d/n", ready)
    train(folder, 2)
    content = yaml.safe_load((folder / "network.yaml").read_text())
    content["plate"]["min_fraction"] = 0.05
    (folder / "network.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(BadInput, match=r"trained with other settings.*plate.min_fraction none -> 0.05"):
        train(folder, 4)


def test_a_plate_that_has_lost_files_is_refused(tmp_path: Path) -> None:
    ready = write_plate(tmp_path)
    lose_a_chunk(ready / "plate.zarr")
    with pytest.raises(BadInput, match=r"ready: plate.zarr/A/1/3/0: \d+ files, of \d+ that were written"):
        train(write_network(tmp_path / "d/n", ready), 2)


def test_the_same_plate_elsewhere_is_the_same(tmp_path: Path, ready: Path) -> None:
    (tmp_path / "moved").symlink_to(ready)
    folder = write_network(tmp_path / "d/n", ready)
    train(folder, 2)
    content = yaml.safe_load((folder / "network.yaml").read_text())
    content["plate"]["path"] = str(tmp_path / "moved")
    (folder / "network.yaml").write_text(yaml.safe_dump(content))
    train(folder, 4)


def test_a_plate_lies_where_one_stands_or_in_the_project(tmp_path: Path, ready: Path, monkeypatch) -> None:
    folder = write_network(tmp_path / "d/n", Path("ready"))
    config = load_network(folder)
    assert plate_folder(config, ready.parent) == ready
    monkeypatch.chdir(ready.parent)
    assert plate_folder(config, tmp_path) == Path("ready")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"heads": {"a": {"target": "affinities", "neighborhood": [[1, 0, 0]]}}}, "expected heads with target: image"),
        ({"plate": None}, "heads.image is a head of image, expected a plate"),
        ({"normalization": {"method": "z_score"}}, "normalization is for volumes"),
        ({"unet": STACK, "training": {"input_shape": [4, 16, 16]}}, "depth of 4, expected an odd number"),
        ({"heads": {"image": HEADS["image"] | {"loss": "malis"}}}, "'malis' is one of affinities"),
        ({"heads": {"image": HEADS["image"] | {"loss": "bce"}}, "unet": UNET | {"final_activation": "tanh"}},
         "has an activation of its own"),
        ({"heads": {"image": HEADS["image"] | {"target_channels": []}}}, "target_channels"),
        ({"plate": {"path": "p", "input_channels": []}}, "input_channels"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(
    tmp_path: Path, ready: Path, sections: dict[str, Any], message
) -> None:
    folder = write_network(tmp_path / "d/n", ready, **sections)
    with pytest.raises(BadInput, match=message) as refused:
        load_network(folder)
    assert "\n" not in str(refused.value)


def test_two_plates_or_samples_that_are_too_large_are_refused(tmp_path: Path, ready: Path) -> None:
    folder = write_network(tmp_path / "d/n", ready, training={"input_shape": [1, 64, 64]})
    config: NetworkConfig = load_network(folder)
    with pytest.raises(BadInput, match="a second plate"):
        load_training_data(config, [str(ready), str(ready)], folder)
    with pytest.raises(BadInput, match=r"none of \d+ stacks of images has room"):
        train(folder, 2)
