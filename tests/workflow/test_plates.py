"""The plan of plates.smk: where each step reads and writes, and what is refused before anything runs."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from builders import ROOT
from emsuite.common.errors import BadInput
from emsuite.workflow.plates import load_plate_plan


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
    assert (plan.plate, plan.plate_input) == (Path("mine/plate.zarr"), [])
    assert plan.iterations == 7


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
