"""02_train/train.py and 03_predict/predict_images.py on a plate, as a user runs them."""

import shutil
from pathlib import Path

import pytest
import yaml

from emsuite.common.outputs import read_manifest
from emsuite.plates.plate import open_plate
from emsuite.training.log import read_losses
from emsuite.visualization.contents import snapshot_columns
from preprocessed_plate import write_network, write_plate

TRAIN, PREDICT, RATE = "02_train/train.py", "03_predict/predict_images.py", "02_train/find_learning_rate.py"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plate, `ready`, and the folder of a network, `d/n`."""
    folder = tmp_path_factory.mktemp("plate")
    write_plate(folder)
    write_network(folder / "d/n", Path("ready"), training={"snapshot_every": 2, "iterations": 2})
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path) -> Path:
    for name in ("ready", "d"):
        shutil.copytree(trained / name, tmp_path / name, symlinks=True)
    for record in trained.glob("ready.*"):
        shutil.copy(record, tmp_path)
    return tmp_path


def test_from_a_plate_to_predicted_frames(call_script, here: Path) -> None:
    run = call_script(TRAIN, "d/n", "--device", "cpu")
    assert run.code == 0, run.err
    assert len(read_losses(here / "d/n/log/losses.csv")) == 2
    (columns,) = {len(snapshot_columns(path)) for path in [here / "d/n/snapshots/batch_2.zarr"]}
    assert columns > 0

    run = call_script(PREDICT, "d/n", "--out", "out.zarr", "--part", "test", "--device", "cpu")
    assert run.code == 0, run.err
    plate = open_plate(here / "out.zarr")
    assert plate.channels == ("nuclei", "membranes")
    manifest = read_manifest(here / "out.zarr")
    assert {"checkpoint", "plate"} <= manifest["inputs"].keys()
    again = call_script(PREDICT, "d/n", "--out", "out.zarr", "--part", "test", "--device", "cpu", "--workers", "2")
    assert again.out == "out.zarr: already there, made with the same settings\n"

    words = ("--tile", "1,32,32", "--overlap", "0,8,8", "--blend", "gaussian", "--copies", "flips", "--variance")
    run = call_script(PREDICT, "d/n", "--out", "frames", "--format", "png", "--plate", "ready/plate.zarr", *words)
    assert run.code == 0, run.err
    assert len(open_plate(here / "frames").channels) == 4
    assert (here / "frames/scale.json").exists()


def test_a_learning_rate_is_suggested(call_script, here: Path) -> None:
    run = call_script(RATE, "d/n", "--steps", "6", "--device", "cpu")
    assert run.code == 0, run.err
    assert (here / "d/n/log/learning_rates.csv").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--variance",), "--variance is that over --copies, expected flips or rotations"),
        (("--overlap", "0,8"), "expected three whole numbers from 0 on"),
        (("--plate", "nowhere"), "error: nowhere: no such folder; expected a plate of OME-NGFF or a folder of frames"),
        (("--plate", "ready/plate.zarr", "--part", "test"), "a part 'test' is one of a preprocessed plate"),
        (("--positions", "99"), "has no position 99"),
        (("--out", "ready/out.zarr"), "ready/out.zarr: lies in ready, which is read"),
    ],
)
def test_wrong_words_are_told_in_one_line(call_script, here: Path, words: tuple[str, ...], line: str) -> None:
    assert call_script(TRAIN, "d/n", "--device", "cpu").code == 0
    run = call_script(PREDICT, "d/n", *(() if "--out" in words else ("--out", "out.zarr")), *words)
    assert run.code == 2
    assert line in run.err
    assert not (here / "out.zarr").exists()


def test_training_without_its_plate_is_told_in_one_line(call_script, here: Path) -> None:
    content = yaml.safe_load((here / "d/n/network.yaml").read_text())
    content["plate"]["path"] = "nowhere"
    (here / "d/n/network.yaml").write_text(yaml.safe_dump(content))
    run = call_script(TRAIN, "d/n")
    assert run.code == 2
    assert "nowhere: has no plate.zarr, expected a folder of a preprocessed plate" in run.err
