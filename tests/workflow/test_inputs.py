"""A user's inputs: an edit is seen and named, and what rules write is no edit."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from builders import ROOT, write_array
from emsuite.common.outputs import manifest_path
from emsuite.common.state.origins import identity_of
from emsuite.config.network import load_network
from emsuite.data.labels_mask import MaskRule, create_mask
from emsuite.io.volume import LABELS, MASK, RAW, open_volume
from emsuite.training.trained_network import weights_read
from emsuite.workflow import inputs, step_orders
from emsuite.workflow.inputs import changed_inputs, log_name, note_inputs, states, states_named_by
from emsuite.workflow.orders import Order
from emsuite.workflow.plan import WorkflowPlan, load_plan
from emsuite.workflow.step_orders import StepOrders
from emsuite.workflow.volumes import Volumes


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkflowPlan:
    """One volume of a user's own, with skeletons."""
    monkeypatch.setattr(inputs, "input_state", inputs.input_state.__wrapped__)  # each look is a new run's
    rng = np.random.default_rng(0)
    write_array(tmp_path / "v.zarr" / RAW, rng.integers(0, 255, (16, 16, 16)).astype(np.uint8))
    write_array(tmp_path / "v.zarr" / LABELS, rng.integers(0, 9, (16, 16, 16)).astype(np.uint64))
    (tmp_path / "v.skeletons").mkdir()
    (tmp_path / "v.skeletons/1.swc").write_text("1 0 0 0 0 1 -1\n")
    volume = str(tmp_path / "v.zarr")
    config: dict[str, Any] = {"dataset": "fib25", "network": "small", "train": volume, "test": f"{volume}@0:80,:,:"}
    return load_plan(config | {"results": str(tmp_path / "results")}, ROOT)


def test_nothing_has_changed_without_a_run_or_an_edit(plan: WorkflowPlan, tmp_path: Path) -> None:
    assert changed_inputs(plan) == []
    note_inputs(plan)
    create_mask(tmp_path / "v.zarr", MaskRule())  # the workflow's own work
    assert changed_inputs(plan) == []


@pytest.mark.parametrize("array", [RAW, LABELS, MASK])
def test_an_edit_of_an_array_is_seen_and_named(plan: WorkflowPlan, tmp_path: Path, array: str) -> None:
    create_mask(tmp_path / "v.zarr", MaskRule())
    before = states(plan, plan.train_parts, RAW, LABELS, MASK)
    note_inputs(plan)
    open_volume(tmp_path / "v.zarr" / array, "r+").array[3, 4, 5] = 0
    assert changed_inputs(plan) == [str(tmp_path / "v.zarr" / array)]
    after = states(plan, plan.train_parts, RAW, LABELS, MASK)
    assert {path for path in after if before[path] != after[path]} == {str(tmp_path / "v.zarr" / array)}
    note_inputs(plan, only_if_new=True)
    assert changed_inputs(plan), "a run that failed does not count as one that has seen the edit"
    note_inputs(plan)
    assert changed_inputs(plan) == []


def test_an_edit_of_skeletons_is_seen(plan: WorkflowPlan, tmp_path: Path) -> None:
    note_inputs(plan)
    (tmp_path / "v.skeletons/1.swc").write_text("1 0 0 0 9 1 -1\n")
    assert changed_inputs(plan) == [str(tmp_path / "v.skeletons")]
    (tmp_path / "v.skeletons/2.swc").write_text("")
    assert changed_inputs(plan) == [str(tmp_path / "v.skeletons")]


def test_volumes_that_the_workflow_writes_count_from_their_manifest_on(
    plan: WorkflowPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Volumes, "is_managed", lambda _volumes, _volume: True)
    part, path = plan.train_parts[0], str(tmp_path / "v.zarr" / RAW)
    assert states(plan, [part], RAW) == {path: "as written"}, "it is still being written"
    (tmp_path / "v.zarr.manifest.json").write_text("{}")
    assert states(plan, [part], RAW) == {path: "as written"}
    manifest = tmp_path / "v.zarr.manifest.json"
    os.utime(manifest, ns=(1, 1))
    assert states(plan, [part], RAW)[path].startswith("state:")


def test_logs_bear_the_name_of_the_volume(plan: WorkflowPlan, tmp_path: Path) -> None:
    assert log_name(plan, tmp_path / "v.zarr") == "v"
    config = {"dataset": "fib25", "network": "small", "train": [str(tmp_path / "v.zarr"), "a/v.zarr"], "test": "b.zarr"}
    plan = load_plan(config, ROOT)
    assert [log_name(plan, part.volume) for part in plan.train_parts] == [f"{tmp_path.name}_v", "a_v"]


def test_an_hdf5_file_is_a_volume_without_a_mask_of_its_own(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "v.h5", "w") as file:
        for name in (RAW, LABELS):
            file[name] = np.ones((8, 8, 8), np.uint8)
            file[name].attrs["resolution"] = [8, 8, 8]
    config = {"dataset": "phantom", "network": "small", "train": str(tmp_path / "v.h5"), "test": str(tmp_path / "v.h5")}
    plan = load_plan(config, ROOT)
    assert plan.volumes.masks(plan.train_parts) == []
    assert "--mask" not in plan.volumes.truth_option(plan.train_parts[0].volume, plan.dataset_option)
    told = states(plan, plan.train_parts, RAW)
    assert told[str(tmp_path / "v.h5" / RAW)].startswith("state:")


def test_arrays_that_a_network_names_are_looked_at(
    plan: WorkflowPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Volumes of artifacts and of validation decide on weights, and no option of a run names them."""
    for array in ("raw", "mask"):
        write_array(tmp_path / f"artifacts.zarr/defect_sections/{array}", np.zeros((4, 32, 32), np.uint8))
    steps = [{"name": "missing_sections", "artifact": 0.5, "artifacts": {"volume": str(tmp_path / "artifacts.zarr")}}]
    validation = {"every": 2, "data": [str(tmp_path / "v.zarr")]}
    overrides = [f"training.augment={json.dumps(steps)}", f"training.validation={json.dumps(validation)}"]
    named = states_named_by(load_network(ROOT / "02_train/fib25/small", overrides))
    assert states_named_by(load_network(ROOT / "02_train/fib25/small")) == {}
    for array in ("artifacts.zarr/defect_sections/mask", f"v.zarr/{RAW}", f"v.zarr/{LABELS}"):
        open_volume(tmp_path / array, "r+").array[1, 2, 3] = 9
        now = states_named_by(load_network(ROOT / "02_train/fib25/small", overrides))
        assert {path for path in now if now[path] != named[path]} == {str(tmp_path / array)}
        named = now
    before = StepOrders(plan).train(plan.network_name, 4).digest
    monkeypatch.setattr(step_orders, "states_named_by", lambda config: {"an array": "of another state"})
    assert StepOrders(plan).train(plan.network_name, 4).digest != before


@pytest.mark.parametrize(("network", "keys", "iteration"), [
    ("small", ["training.start_from.checkpoint=../first"], 3),
    ("small", ["training.start_from.checkpoint=../first/checkpoints/checkpoint_3.pt"], 3),
    ("acrlsd", ["autocontext.network=first", "autocontext.iteration=7"], 7),
    ("transfer_em", ["transfer.discriminator.prior={network: ../first, layer: unet, iteration: 7}"], 7),
    ("transfer_em", ["transfer.discriminator.prior={network: ../first, layer: unet}"], None),
])  # fmt: skip
def test_weights_that_a_network_reads_are_looked_at(
    tmp_path: Path, network: str, keys: list[str], iteration: int | None
) -> None:
    """Weights to begin with, of a frozen network, of a prior: other content, not other times, makes the step due."""
    folder, first = tmp_path / "fib25/n", tmp_path / "fib25/first"
    for copy, source in ((folder, network), (first, "lsd")):
        copy.mkdir(parents=True)
        told = (ROOT / "02_train/fib25" / source / "network.yaml").read_text()
        (copy / "network.yaml").write_text(f"voxel_size: [8, 8, 8]\n{told}")
    shutil.copyfile(ROOT / "02_train/fib25/dataset.yaml", tmp_path / "fib25/dataset.yaml")
    config = load_network(folder, keys)
    weights = first / f"checkpoints/checkpoint_{iteration or load_network(first).training.iterations}.pt"
    weights.parent.mkdir()
    weights.write_bytes(b"some weights")
    assert weights_read(folder / "runs/a", config) == (weights,)
    order = Order("{}", (tmp_path / "checkpoint_9.pt",), reads=weights_read(folder, config))
    order.outputs[0].write_bytes(b"trained")
    made_from = {"weights": identity_of(weights)}
    manifest_path(order.outputs[0]).write_text(json.dumps({"order": order.digest, "made_from": made_from}))
    os.utime(weights, (5, 5))
    order.write()
    assert not order.is_due
    content = weights.read_bytes()
    weights.unlink()
    order.write()
    assert not order.is_due, "a run that has begun with them needs them no more"
    weights.write_bytes(content[::-1])
    order.write()
    assert order.is_due
