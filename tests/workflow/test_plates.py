"""The plan of plates.smk: where each step reads and writes, and what is refused before anything runs."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from builders import ROOT, lose_a_chunk
from emsuite.common.errors import BadInput
from emsuite.common.outputs import manifest_path, output
from emsuite.plates.preprocess import preprocess
from emsuite.plates.synthesize import LabelFreeSettings, synthesize_frames
from emsuite.workflow.plates import PlatePlan, load_plate_plan


def test_a_run_of_its_own_shares_the_plate_alone() -> None:
    plan, dark = load_plate_plan({}, ROOT), load_plate_plan({"run": "dark", "set": "flat_field=null"}, ROOT)
    assert plan.plate == dark.plate == Path("data/microdl/plate.zarr")
    assert plan.ready == Path("data/microdl/preprocessed")
    assert dark.ready == Path("data/microdl/dark/preprocessed")
    assert dark.folder == Path("02_train/microdl/small/runs/dark")
    assert plan.results == Path(f"results/microdl/small/{plan.iterations}")
    assert dark.results == Path(f"results/microdl/small/dark/{plan.iterations}")
    assert dark.config.set == ("flat_field=null",)


def test_masks_are_scored_where_there_are_some() -> None:
    assert load_plate_plan({}, ROOT).mask_options == "--masks"
    without = ["masks=null", "tiles.min_fraction=0"]
    assert load_plate_plan({"set": without}, ROOT).mask_options == ""


def test_a_plate_of_ones_own_is_waited_for_as_it_is() -> None:
    plan = load_plate_plan({"plate": "mine/plate.zarr", "iterations": 7}, ROOT)
    assert plan.plate == plan.plate_input == Path("mine/plate.zarr")
    assert plan.iterations == 7


@pytest.fixture
def own(tmp_path: Path) -> tuple[PlatePlan, dict[str, Any]]:
    """The plan of a folder of frames that is preprocessed, as a run leaves it, and its configuration."""
    synthesize_frames("label-free", LabelFreeSettings(positions=3, times=1, slices=2, size=32, cells=4), tmp_path / "f")
    (tmp_path / "f.manifest.json").unlink()
    (tmp_path / "steps.yaml").write_text("split: {train: 0.4, val: 0.3, test: 0.3}\ninput: .\noutput: .\n")
    config = {"plate": tmp_path / "f", "preprocess": tmp_path / "steps.yaml", "data": tmp_path / "data",
              "results": tmp_path / "results"}  # fmt: skip
    config = {key: str(path) for key, path in config.items()}
    plan = load_plate_plan(config, ROOT)
    preprocess(plan.steps.model_copy(update={"input": plan.plate, "output": plan.ready}))
    return plan, config


def planned(plan: PlatePlan, config: dict[str, Any]) -> str:
    """What Snakemake would do for the preprocessed plate."""
    keys = [f"{key}={value}" for key, value in config.items()]
    command = [sys.executable, "-m", "snakemake", "--snakefile", "plates.smk", "--cores", "1", "-n",
               f"{plan.ready}.manifest.json", "--config", *keys]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_frame_that_was_rewritten_in_place_is_preprocessed_again(own: tuple[PlatePlan, dict[str, Any]]) -> None:
    plan, _ = own
    assert list(plan.look_for_changes()) == []
    assert "Nothing to be done" in planned(*own)
    frame = min(plan.plate.glob("*.png"))
    frame.write_bytes(frame.read_bytes())
    assert "rule preprocess" in planned(*own)


def test_changed_steps_and_lost_files_are_preprocessed_again(own: tuple[PlatePlan, dict[str, Any]]) -> None:
    plan, config = own
    manifest = Path(f"{plan.ready}.manifest.json")
    changed = load_plate_plan(config | {"set": ["resize={scale: 0.5}"]}, ROOT)
    assert [line.split(":")[0] for line in changed.look_for_changes()] == [str(plan.ready)]
    assert manifest.stat().st_mtime == 10**9
    os.utime(manifest)
    lose_a_chunk(plan.ready / "plate.zarr")
    assert len(list(plan.look_for_changes())) == 1
    assert manifest.stat().st_mtime == 10**9


def test_a_prediction_that_has_lost_files_is_made_again(own: tuple[PlatePlan, dict[str, Any]]) -> None:
    plan, _ = own
    for path in (plan.results / "plate.zarr", plan.scores):
        with output(path, {}) as made:
            made.claim()
            (path / "0").write_text("voxels")
            (path / "1").write_text("voxels")
        assert list(plan.look_for_changes()) == []
        (path / "0").unlink()
        assert list(plan.look_for_changes()) == [f"{path}: 1 files, of 2 that were written; it is made again"]
        assert manifest_path(path).stat().st_mtime == 10**9
        (path / "0").write_text("voxels")


def test_the_advice_of_a_refused_training_is_a_key() -> None:
    """It names --config if_changed=continue, run=NAME, if_changed=keep."""
    for choice in ("refuse", "continue", "keep"):
        assert load_plate_plan({"if_changed": choice}, ROOT).config.if_changed == choice
    assert re.findall(r"--if-changed \{params.if_changed\}", (ROOT / "plates.smk").read_text())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"netwrok": "small"}, "netwrok"),
        ({"dataset": "fib25"}, "reads volumes, expected a network with the key `plate`"),
        ({"network": "huge"}, "huge"),
        ({"set": ["split=null"]}, "has no split"),
        ({"set": ["masks.method=magic"]}, "masks.method"),
        ({"preprocess": "nowhere.yaml"}, "nowhere.yaml"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as refused:
        load_plate_plan(config, ROOT)
    assert "\n" not in str(refused.value)


def test_the_workflow_plans_from_frames_to_scores(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "snakemake", "--snakefile", "plates.smk", "--cores", "1", "-n", "--quiet", "rules",
               "--config", f"data={tmp_path}/data", f"results={tmp_path}/results"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    refused = subprocess.run([*command, "network=huge"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "error: " in refused.stderr
