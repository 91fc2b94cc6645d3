"""plates.smk to its end on a small plate; edits that no time tells run the steps that they concern."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from builders import copy_project
from emsuite.plates.synthesize import synthesize_frames
from preprocessed_plate import HEADS, SET, STEPS, UNET, write_network
from workflow_runs import snakemake, snakemake_in_fork

FILE = ("--snakefile", "plates.smk")
KEYS = ("dataset=mine", "network=small", "plate=frames", "preprocess=steps.yaml", "device=cpu")
PREDICTED = ["evaluate_images", "predict_images"]
TRAINED = sorted([*PREDICTED, "train_on_plate"])
ALL = sorted([*TRAINED, "preprocess"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose run has ended."""
    project = copy_project(tmp_path_factory.mktemp("finished") / "project")
    synthesize_frames("label-free", SET, project / "frames")
    (project / "frames.manifest.json").unlink()
    (project / "steps.yaml").write_text(yaml.safe_dump(STEPS | {"input": ".", "output": "."}))
    write_network(project / "02_train/mine/small", Path("data/mine/preprocessed"))
    done = snakemake(project, *KEYS, options=FILE)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (project / "results/mine/small/4/scores/report.html").exists()
    return project


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy that keeps the times, without Snakemake's memory; frames and plates are the same files."""

    def copy(source: str, to: str) -> None:
        is_plate = Path(source).relative_to(finished).parts[0] in ("frames", "data")
        (os.link if is_plate and not source.endswith(".manifest.json") else shutil.copy2)(source, to)

    memory = shutil.ignore_patterns(".snakemake")
    return Path(shutil.copytree(finished, tmp_path / "copy", ignore=memory, copy_function=copy))


def planned(project: Path, *more: str) -> list[str]:
    done = snakemake_in_fork(project, *KEYS, *more, options=(*FILE, "--dry-run"))
    assert done.returncode == 0, done.stderr[-3000:]
    return sorted(set(re.findall(r"^(?:local)?rule (\w+):", done.stdout + done.stderr, re.MULTILINE)) - {"all"})


def replace(file: Path, content: bytes) -> None:
    """Put another file in its place, with the time of the former one, as `cp -p` and `rsync` may."""
    about = file.stat()
    file.unlink()
    file.write_bytes(content)
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "steps"),
    [
        ({}, []),
        ({"unet": UNET | {"num_fmaps": 5}}, TRAINED),
        ({"heads": {"image": HEADS["image"] | {"target_channels": ["membranes", 1]}}}, TRAINED),
        ({"training": {"optimizer": {"learning_rate": 0.004}}}, TRAINED),
        ({"training": {"log_every": 2}}, []),
        ({"prediction": {"input_shape": [1, 48, 48]}}, PREDICTED),
    ],
)
def test_an_edit_of_the_network_that_no_time_tells(project: Path, edit: dict[str, Any], steps: list[str]) -> None:
    network = project / "02_train/mine/small/network.yaml"
    shutil.rmtree(project / "edited", ignore_errors=True)
    content = (write_network(project / "edited", Path("data/mine/preprocessed"), **edit) / "network.yaml").read_bytes()
    replace(network, content)
    assert planned(project) == steps


@pytest.mark.slow
def test_a_checkpoint_that_is_another_predicts_anew(project: Path) -> None:
    checkpoints = project / "02_train/mine/small/checkpoints"
    shutil.copy(checkpoints / "checkpoint_2.pt", checkpoints / "checkpoint_4.pt")
    assert planned(project) == TRAINED


@pytest.mark.slow
def test_times_in_the_future_do_no_harm(project: Path) -> None:
    """As of a camera, or of another machine; the content counts."""
    for name in ("frames", "steps.yaml", "02_train/mine/small/network.yaml"):
        os.utime(project / name, (2e9, 2e9))
    shutil.rmtree(project / "data")
    shutil.rmtree(project / "results")
    done = snakemake_in_fork(project, *KEYS, "if_changed=keep", options=FILE)
    assert done.returncode == 0, done.stderr[-3000:]
    assert planned(project, "if_changed=keep") == []


@pytest.mark.slow
def test_a_step_that_was_refused_is_not_forgotten(project: Path) -> None:
    """Another frame: the network was trained on the former ones, so that training asks what to do, each time."""
    first, second, *_ = sorted((project / "frames").glob("*.png"))
    replace(first, second.read_bytes())
    for _ in range(2):
        refused = snakemake_in_fork(project, *KEYS, options=FILE)
        assert refused.returncode == 1
        assert "was trained with other" in refused.stderr
        assert planned(project) == TRAINED
    done = snakemake_in_fork(project, *KEYS, "if_changed=keep", options=FILE)
    assert done.returncode == 0, done.stderr[-3000:]
    assert planned(project) == []


@pytest.mark.slow
def test_preprocessing_that_was_refused_is_not_forgotten(project: Path) -> None:
    large = "set=['tiles.size=[4000, 4000]']"
    for _ in range(2):
        assert snakemake_in_fork(project, *KEYS, large, options=FILE).returncode == 1
        assert planned(project, large) == ALL


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "steps"),
    [
        ("data/mine/preprocessed", ALL),
        ("02_train/mine/small/checkpoints/checkpoint_4.pt", TRAINED),
        ("results/mine/small/4/plate.zarr", PREDICTED),
        ("results/mine/small/4/scores", ["evaluate_images"]),
    ],
)
def test_an_output_without_its_manifest_is_of_a_stopped_step(project: Path, lost: str, steps: list[str]) -> None:
    (project / f"{lost}.manifest.json").unlink()
    assert planned(project) == steps


@pytest.mark.slow
@pytest.mark.parametrize(
    ("output", "steps"),
    [
        ("data/mine/preprocessed/plate.zarr", ALL),
        ("results/mine/small/4/plate.zarr", PREDICTED),
        ("results/mine/small/4/scores", ["evaluate_images"]),
    ],
)
def test_an_output_that_has_lost_a_file_is_made_again(project: Path, output: str, steps: list[str]) -> None:
    files = [file for file in (project / output).rglob("*") if file.is_file() and file.suffix != ".json"]
    max(files, key=lambda file: file.stat().st_size).unlink()
    assert planned(project) == steps


@pytest.mark.slow
def test_a_frame_that_was_rewritten_in_place_and_other_steps_preprocess_again(project: Path) -> None:
    frame = min((project / "frames").glob("*.png"))
    replace(frame, frame.read_bytes())
    assert planned(project, "set=['resize={scale: 0.5}']") == planned(project) == ALL


@pytest.mark.slow
def test_a_plate_that_was_preprocessed_anew_alone_is_trained_on(project: Path) -> None:
    first, second, *_ = sorted((project / "frames").glob("*.png"))
    replace(first, second.read_bytes())
    done = snakemake_in_fork(project, *KEYS, options=(*FILE, "--until", "preprocess"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert planned(project) == planned(project) == TRAINED


@pytest.mark.slow
@pytest.mark.parametrize("file", ["split.json", "statistics.csv"])
def test_an_edited_file_beside_the_plate_is_made_anew(project: Path, file: str) -> None:
    """With the same size and time: its content counts."""
    path = project / "data/mine/preprocessed" / file
    content = path.read_bytes()
    assert planned(project) == []
    replace(path, content[:-5] + b"#" + content[-4:])
    assert planned(project) == ALL
