"""What is said at the end of a run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builders import ROOT, write_array
from emsuite.common.files import write_json
from emsuite.config.parts import VolumePart
from emsuite.config.training import Validation
from emsuite.io.volume import LABELS, RAW
from emsuite.workflow.plan import WorkflowPlan, load_plan
from emsuite.workflow.run_summary import role_in_training, run_summary


def plan_of(folder: Path, train: list[str], test: list[str], record: object = None, **config: object) -> WorkflowPlan:
    """A plan of FIB-25's `small`, whose checkpoint has this record, with scores of the test volumes."""
    given = {"dataset": "fib25", "network": "small", "train": train, "test": test, "results": str(folder / "results")}
    plan = load_plan(given | config, ROOT)
    plan = WorkflowPlan(plan.config, plan.dataset, plan.network, folder)
    write_json(folder / plan.checkpoint_manifest(), {"settings": {"training": {}}} if record is None else record)
    best = {"threshold": 0.4, "voi_split": 0.5, "voi_merge": 1.0, "voi_sum": 1.5}
    for name in plan.test_parts:
        write_json(plan.results / name / "scores.json", {"best": best})
    return plan


MIXED = {"settings": {"training": {}}, "continued_with_other_data": True}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with volumes, checkpoints and results, without networks to read."""
    monkeypatch.setattr(WorkflowPlan, "frozen_training", lambda *_: [])
    return tmp_path


def test_only_the_volumes_of_this_run_are_told(project: Path) -> None:
    earlier = plan_of(project, ["a.zarr"], ["old.zarr"])
    plan = plan_of(project, ["a.zarr"], ["b.zarr", "a.zarr"])
    assert (earlier.results / "old/scores.json").exists()
    told = run_summary(plan, "view.py")
    assert [line.partition(" VOI ")[0] for line in told.splitlines() if "VOI" in line] == [
        "b, held out:",
        "a, trained on:",
    ]
    (plan.results / "b/scores.json").unlink()
    assert run_summary(plan, "view.py").startswith("a, trained on: VOI")
    (plan.results / "a/scores.json").unlink()
    assert run_summary(plan, "view.py") == ""


@pytest.mark.parametrize(
    ("tested", "role"),
    [
        ("v.zarr@1040:1280,:,:", "held out"),
        ("v.zarr@1032:1280,:,:", "trained on"),
        ("v.zarr", "trained on"),
        ("v.zarr@1040:,0:80,:", "held out"),
        ("v.zarr@:1280,0:80,:", "trained on"),
        ("v.zarr@-80:0.5,:,:", "trained on"),
        ("v.zarr@-80:0,:,:", "held out"),
        ("w.zarr@0:80,0:80,80:160", "held out"),
        ("w.zarr@0:80,0:80,0:81", "trained on"),
        ("w.zarr@0:80,0:80,79:", "trained on"),
        ("x.zarr", "held out"),
        ("other/../v.zarr@0:8,:,:", "trained on"),
    ],
)
def test_the_role_of_a_part(project: Path, tested: str, role: str) -> None:
    """Regions that touch share nothing."""
    plan = plan_of(project, ["v.zarr@0:1040,:,:", "w.zarr@:,:,0:80"], [tested])
    (part,) = plan.test_parts.values()
    assert role_in_training(plan, part) == role


@pytest.mark.parametrize(
    ("data", "role"), [([], "validated on"), (["w.zarr@0:80,:,:"], "validated on"), (["w.zarr@80:,:,:"], "held out")]
)
def test_a_part_that_chose_the_weights_is_not_held_out(project: Path, data: list[str], role: str) -> None:
    """Without `data` the parts of the data set's split are validated on: here the one that is scored."""
    plan = plan_of(project, ["v.zarr"], ["w.zarr@0:80,:,:"])
    validation = Validation.model_validate({"every": 2, "patience": 1, "data": data})
    network = plan.network.model_copy(
        update={"training": plan.network.training.model_copy(update={"validation": validation})}
    )
    plan = replace(plan, network=network)
    (scored,) = plan.test_parts.values()
    if not data:
        (scored,) = plan.validation_parts(plan.network_name)
    assert role_in_training(plan, scored) == role


def test_a_link_to_a_training_volume_is_that_volume(project: Path) -> None:
    for name in (RAW, LABELS):
        write_array(project / "v.zarr" / name, np.ones((2, 2, 2), np.uint8))
    (project / "linked.zarr").symlink_to(project / "v.zarr")
    plan = plan_of(project, ["v.zarr"], [str(project / "linked.zarr")])
    assert role_in_training(plan, plan.test_parts["linked"]) == "trained on"


@pytest.mark.parametrize(
    "record", [{"settings": {"converted": {}, "network": {"training": {}}}}, {}, [], {"settings": 3}, MIXED]
)
def test_of_converted_weights_nobody_knows(project: Path, record: object) -> None:
    plan = plan_of(project, ["v.zarr"], ["w.zarr", "v.zarr"], record)
    assert role_in_training(plan, VolumePart(volume=Path("w.zarr"))) is None
    assert role_in_training(plan, VolumePart(volume=Path("v.zarr"))) == "trained on"
    assert run_summary(plan, "view.py").startswith("w: VOI split")


@pytest.mark.parametrize("if_changed", ["keep", "continue"])
def test_weights_of_other_data_that_are_taken(project: Path, if_changed: str) -> None:
    plan = plan_of(project, ["v.zarr"], ["w.zarr"], if_changed=if_changed)
    assert role_in_training(plan, plan.test_parts["w"]) is None
