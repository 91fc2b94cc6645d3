"""A finished project, and what users change in it: each change makes the steps run again that it concerns, no other.

Snakemake's own memory must not be needed: copies of projects come without it, and failed steps erase it.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from builders import copy_project
from emsuite.common.outputs import manifest_path
from emsuite.io.volume import LABELS, MASK, RAW, open_volume
from emsuite.training.checkpoint import checkpoint_path
from workflow_runs import shrink_phantom, snakemake, snakemake_in_fork

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("changes")]

PHANTOM = ("dataset=phantom", "network=small", "iterations=2")
VOLUME = "data/funke/phantom/training/phantom-test.zarr"
RESULT = "results/phantom/small/2/phantom-test"
NETWORK = "02_train/phantom/small"
SEGMENTING = ["agglomerate", "evaluate", "extract_fragments", "extract_segmentation", "find_segments"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose workflow has run to its end."""
    project = copy_project(tmp_path_factory.mktemp("finished") / "project")
    shrink_phantom(project)
    done = snakemake(project, *PHANTOM)
    assert done.returncode == 0, done.stderr[-3000:]
    return project


@pytest.fixture
def project(finished: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of the finished project that keeps the times; without Snakemake's memory, unless the test asks for it."""
    copy = Path(shutil.copytree(finished, tmp_path / "copy", symlinks=True))
    if not getattr(request, "param", False):
        shutil.rmtree(copy / ".snakemake")
    return copy


def planned(project: Path, *config: str) -> list[str]:
    """The rules that would run now."""
    done = snakemake_in_fork(project, *PHANTOM, *config, options=("--dry-run",))
    assert done.returncode == 0, done.stderr[-3000:]
    return sorted(set(re.findall(r"^(?:local)?rule (\w+):", done.stdout + done.stderr, re.MULTILINE)) - {"all"})


def test_another_setting_of_the_segmentation(project: Path) -> None:
    assert planned(project) == []
    assert planned(project, "segmentation={flood: distance}") == SEGMENTING
    assert planned(project, "segmentation={thresholds: '0,1,0.5'}") == [
        "evaluate",
        "extract_segmentation",
        "find_segments",
    ]


@pytest.mark.parametrize("project", [True], indirect=True)
def test_a_refused_training_is_refused_until_the_user_has_chosen(project: Path) -> None:
    path = project / "02_train/phantom/dataset.yaml"
    path.write_text(path.read_text().replace("learning_rate: 0.002", "learning_rate: 0.001"))
    for _ in range(2):
        done = snakemake_in_fork(project, *PHANTOM)
        assert done.returncode != 0
        assert "learning_rate" in done.stderr
    before = (project / RESULT / "scores.json").read_bytes()
    done = snakemake_in_fork(project, *PHANTOM, "if_changed=keep")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (project / RESULT / "scores.json").read_bytes() != before
    assert planned(project, "if_changed=keep") == []


@pytest.mark.parametrize("project", [True], indirect=True)
def test_a_step_that_failed_is_not_forgotten(project: Path) -> None:
    for _ in range(2):
        done = snakemake_in_fork(project, *PHANTOM, "segmentation={block_size: [8, 8, 9]}")
        assert done.returncode != 0
        assert "error: extract_fragments: block size" in done.stderr, done.stderr[-3000:]
    assert planned(project) == SEGMENTING, "the first settings again: their outputs are gone"


@pytest.mark.parametrize("array", [MASK, LABELS, RAW])
def test_an_array_put_in_the_place_of_another_with_older_times(project: Path, array: str) -> None:
    path = project / VOLUME / array
    volume = open_volume(path, "r+")
    volume.array[:] = volume.array[:] // 2 if array == RAW else np.where(volume.array[:] > 3, 0, volume.array[:])
    for file in (path, *path.rglob("*")):
        os.utime(file, (1e9, 1e9))
    if array == MASK:
        volume.array[:8] = 0
        os.utime(next(file for file in path.rglob("*") if file.is_file() and file.name != "zarr.json"), (1e9, 1e9))
    assert {"evaluate", *(["predict"] if array == RAW else [])} <= set(planned(project))


@pytest.mark.parametrize("raw_too", [True, False])
def test_a_mask_to_be_made_hides_no_step_that_reads_raw(project: Path, raw_too: bool) -> None:
    """A prediction waits for the mask and does not read it: it runs exactly if raw is another."""
    for array in [LABELS, *([RAW] if raw_too else [])]:
        voxels = open_volume(project / VOLUME / array, "r+").array
        voxels[:] = np.where(voxels[:] > 3, voxels[:] - 1, voxels[:])
    steps = {"predict", *SEGMENTING} if raw_too else {"evaluate", "extract_segmentation"}
    assert planned(project) == sorted({*steps, *[step for step in planned(project) if step.startswith("create_masks")]})
    assert any(step.startswith("create_masks") for step in planned(project))


def test_a_checkpoint_of_another_training(project: Path) -> None:
    path = checkpoint_path(project / NETWORK, 2)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert {"train", "predict", *SEGMENTING} <= set(planned(project))


@pytest.mark.parametrize("step", ["prediction", "fragments", "segmentation"])
def test_a_chunk_that_is_gone(project: Path, step: str) -> None:
    folder = project / RESULT / f"{step}.zarr"
    chunk = max((file for file in folder.rglob("c/**/*") if file.is_file()), key=lambda file: file.stat().st_size)
    chunk.unlink()
    rules = {"prediction": "predict", "fragments": "extract_fragments", "segmentation": "extract_segmentation"}
    assert rules[step] in planned(project)


@pytest.mark.parametrize("name", ["scores.csv", "scores.json", "errors.csv", "report.html"])
def test_scores_that_are_gone(project: Path, name: str) -> None:
    (project / RESULT / name).unlink()
    assert planned(project)[0] == "evaluate"


def test_a_project_copied_with_new_times_runs_no_training_again(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", finished, copy], check=True)
    volumes = json.loads(manifest_path(copy / VOLUME).read_text())["arrays"]
    assert set(volumes) == {RAW, LABELS}
    assert planned(copy) == [], "voxels, not times, decide"


@pytest.mark.parametrize(
    ("until", "settings", "later"),
    [
        ("find_segments", "segmentation={thresholds: '0,1,0.5'}", ["evaluate", "extract_segmentation"]),
        ("extract_fragments", "segmentation={flood: distance}", [step for step in SEGMENTING if "frag" not in step]),
    ],
)
def test_a_project_stopped_midway_and_copied(
    finished: Path, tmp_path: Path, until: str, settings: str, later: list[str]
) -> None:
    stopped = tmp_path / "stopped"
    shutil.copytree(finished, stopped, symlinks=True)
    done = snakemake_in_fork(stopped, *PHANTOM, settings, options=("--until", until))
    assert done.returncode == 0, done.stderr[-3000:]
    for memory in (True, False):
        copy = tmp_path / f"copy with memory {memory}"
        subprocess.run(["cp", "-r", stopped, copy], check=True)
        if not memory:
            shutil.rmtree(copy / ".snakemake")
        assert planned(copy, settings) == later, memory
        for number, file in enumerate(sorted(copy.rglob("*.json"))):
            os.utime(file, (1e9 + number, 1e9 + number))
        assert planned(copy, settings) == later, (memory, "whatever the times")


def test_outputs_of_a_version_without_orders_are_compared(project: Path) -> None:
    for file in [file for file in project.rglob("*.json") if "config" not in file.parts]:
        content = json.loads(file.read_text())
        about = content.get("provenance", content) if isinstance(content, dict) else {}
        if about.pop("order", None):
            about.pop("made_from", None)
            about_times = file.stat()
            file.write_text(json.dumps(content))
            os.utime(file, ns=(about_times.st_atime_ns, about_times.st_mtime_ns))
        if file.name.endswith(".order.json"):
            file.unlink()
    assert planned(project) == ["evaluate", "extract_segmentation"], "scores are always made again"
    assert planned(project, "segmentation={flood: distance}") == SEGMENTING


def test_intermediate_outputs_may_be_deleted(project: Path) -> None:
    for path in (project / RESULT / "prediction.zarr", project / RESULT / "fragments.zarr"):
        shutil.rmtree(path)
        manifest_path(path).unlink()
    assert planned(project) == []
