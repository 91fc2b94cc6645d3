"""Volumes of a run: what is made, what they hold, and the options that name it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from builders import ROOT, write_array
from emsuite.common.errors import BadInput
from emsuite.io.single_file import write_hdf5
from emsuite.io.volume import LABELS, MASK, RAW
from emsuite.workflow.plan import load_plan
from emsuite.workflow.step_orders import StepOrders

FIB25 = {"dataset": "fib25", "network": "small"}


def test_shared_folders_are_looked_at_first(fib25_slab: Path) -> None:
    shared = fib25_slab.parents[2]
    plan = load_plan(FIB25 | {"shared": ["nowhere", str(shared)]}, ROOT)
    assert plan.volumes.source_option("trvol-250-2", plan.config.shared) == ["--from", str(shared)]
    assert plan.volumes.source_option("tstvol-520-1", plan.config.shared) == []


def test_skeletons_are_the_ground_truth_of_a_volume_without_labels(tmp_path: Path) -> None:
    traced, labelled, bare = (tmp_path / f"{name}.zarr" for name in ("traced", "labelled", "bare"))
    for volume in (traced, labelled, bare):
        write_array(volume / "volumes/raw", np.zeros((4, 4, 4), np.uint8))
    write_array(labelled / "volumes/labels/neuron_ids", np.ones((4, 4, 4), np.uint64))
    for volume in (traced, labelled):
        volume.with_suffix(".skeletons").mkdir()
    with pytest.raises(BadInput, match=r"bare.zarr: has no volumes/labels/neuron_ids"):
        load_plan(FIB25 | {"test": [str(traced), str(bare)]}, ROOT)
    plan = load_plan(FIB25 | {"test": [str(traced), str(labelled)]}, ROOT)
    parts = plan.test_parts
    assert {name: plan.volumes.has_labels(part.volume) for name, part in parts.items()} == {
        "traced": False,
        "labelled": True,
    }
    assert (
        plan.volumes.truth_option(parts["traced"].volume, plan.dataset_option)
        == plan.volumes.masks([parts["traced"]])
        == []
    )
    assert plan.volumes.truth_option(parts["labelled"].volume, plan.dataset_option)[0] == "--labels"
    assert plan.volumes.masks([parts["labelled"]]) == [f"{labelled}.masks.json"]
    mask = write_array(traced / "volumes/labels/labels_mask", np.ones((4, 4, 4), np.uint8))
    assert plan.volumes.truth_option(parts["traced"].volume, plan.dataset_option) == [
        "--mask",
        str(mask.path),
        "--dataset",
        plan.dataset.name,
    ]


@pytest.mark.parametrize("name", ["cube.h5", "cube.h5/group"])
def test_a_mask_in_an_hdf5_file_is_scored_by(tmp_path: Path, name: str) -> None:
    array = np.ones((4, 4, 4), np.uint8), {"resolution": [8.0] * 3}
    inside = ("volumes/raw", LABELS, MASK)
    write_hdf5(tmp_path / "cube.h5", {f"{group}{key}": array for group in ("", "group/") for key in inside}, {})
    plan = load_plan(FIB25 | {"train": str(tmp_path / name), "test": str(tmp_path / name)}, ROOT)
    told = plan.volumes.truth_option(tmp_path / name, plan.dataset_option)
    assert told == ["--labels", str(tmp_path / name / LABELS), "--mask", str(tmp_path / name / MASK),
                    "--dataset", "fib25"]  # fmt: skip


def test_volumes_that_are_still_to_come_have_labels() -> None:
    plan = load_plan({"dataset": "phantom", "network": "small", "data": "nowhere"}, ROOT)
    (part,) = plan.test_parts.values()
    assert plan.volumes.has_labels(part.volume)
    assert plan.volumes.truth_option(part.volume, plan.dataset_option)[0] == "--labels"


@pytest.mark.parametrize("which", ["train", "test"])
@pytest.mark.parametrize(
    ("roi", "message"),
    [
        ("3:80,:,:", "does not lie on the voxels"),
        ("80:0,:,:", "'80:0' is empty"),
        ("0:168,:,:", r"covers \[0:160.* was asked for"),
    ],
)
@pytest.mark.parametrize("name", ["cube.zarr", "cube.h5", "cube.h5/group"])
def test_a_region_that_cannot_be_is_refused_before_anything_runs(
    tmp_path: Path, name: str, which: str, roi: str, message: str
) -> None:
    raw, good = np.zeros((20, 8, 8), np.uint8), tmp_path / "cube.zarr"
    write_array(good / "volumes/raw", raw)
    write_array(good / LABELS, raw.astype(np.uint64))
    array = raw, {"resolution": [8.0] * 3}
    if name != "cube.zarr":
        write_hdf5(tmp_path / "cube.h5", {"volumes/raw": array, "group/volumes/raw": array}, {})
    config = FIB25 | {"train": str(good), "test": str(good)}
    assert load_plan(config | {which: f"{good}@0:80,:,:"}, ROOT).parts
    with pytest.raises(BadInput, match=message):
        load_plan(config | {which: f"{tmp_path / name}@{roi}"}, ROOT)


@pytest.mark.parametrize("which", ["train", "test"])
def test_missing_labels_are_told_before_anything_runs(tmp_path: Path, which: str) -> None:
    for name in ("good", "bad"):
        write_array(tmp_path / f"{name}.zarr/volumes/raw", np.zeros((20, 8, 8), np.uint8))
    write_array(tmp_path / "good.zarr" / LABELS, np.ones((20, 8, 8), np.uint64))
    config = FIB25 | {"train": str(tmp_path / "good.zarr"), "test": str(tmp_path / "good.zarr")}
    assert load_plan(config, ROOT).parts
    with pytest.raises(BadInput, match=r"bad.zarr: has no volumes/labels/neuron_ids, expected labels to train on"):
        load_plan(config | {which: str(tmp_path / "bad.zarr")}, ROOT)


def test_volumes_of_a_split_are_not_looked_at_before_they_may_be_made_anew(tmp_path: Path) -> None:
    """A larger one may be asked for, with a region of its own."""
    config = FIB25 | {"data": str(tmp_path)}
    part = next(iter(load_plan(config, ROOT).test_parts.values()))
    write_array(part.volume / RAW, np.zeros((10, 8, 8), np.uint8))
    part.volume.with_name(part.volume.name + ".manifest.json").write_text("{}")
    assert load_plan(config, ROOT).parts
    with pytest.raises(BadInput, match="was asked for"):
        load_plan(config | {"test": [part.argument]}, ROOT)


def test_hdf5_files_of_a_data_set_are_made_and_masked_as_they_are_read(tmp_path: Path) -> None:
    plan = load_plan({"dataset": "cremi_phantom", "network": "small", "data": str(tmp_path)}, ROOT)
    train, test = (tmp_path / f"funke/cremi_phantom/training/sections-{name}.hdf" for name in ("train", "test"))
    assert [part.volume for part in plan.train_parts] == [train]
    assert plan.volumes.manifest(test) == [test.with_name("sections-test.hdf.manifest.json")]
    assert plan.volumes.manifest(test.with_suffix(".zarr")) == [], "a volume of the user's own"
    assert plan.masked_volumes == []
    assert plan.volumes.masks(plan.train_parts) == [f"{train}.manifest.json"]
    part = plan.test_parts["sections-test"]
    assert plan.volumes.truth_option(part.volume, plan.dataset_option) == [
        "--labels",
        str(test / "volumes/labels/neuron_ids"),
    ]
    order = StepOrders(plan).volume("sections-test")
    assert "--padding 4,40,40" in " ".join(json.loads(order.asked)["source"])


def test_a_rule_that_scoring_does_not_know_needs_a_mask(tmp_path: Path) -> None:
    """0 and the special ids are left out of HDF5 files as they are read, other labels are not."""
    shutil.copytree(ROOT / "02_train/cremi_phantom", tmp_path / "02_train/own")
    (tmp_path / "01_data/datasets").mkdir(parents=True)
    file = tmp_path / "v.h5"
    array = np.ones((4, 4, 4), np.uint8), {"resolution": [40.0, 4.0, 4.0]}
    write_hdf5(file, {"volumes/raw": array, "volumes/labels/neuron_ids": array}, {})
    config = {"dataset": "own", "network": "small", "train": str(file), "test": str(file)}
    for unlabelled, is_known in (([0, 2**64 - 3], True), ([7], False)):
        own = {"name": "own", "voxel_size": [40, 4, 4], "volumes": ["v"], "mask": {"unlabelled": unlabelled}}
        (tmp_path / "01_data/datasets/own.yaml").write_text(json.dumps(own))
        if is_known:
            assert load_plan(config, tmp_path).masked_volumes == []
        else:
            with pytest.raises(BadInput, match="has no volumes/labels/labels_mask, which the data set own needs"):
                load_plan(config, tmp_path)
