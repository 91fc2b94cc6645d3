"""The workflow's settings and paths, without running anything."""

import json
import re
import shutil
from pathlib import Path

import pytest

from builders import ROOT
from emsuite.common.errors import BadInput
from emsuite.config.network import load_network
from emsuite.config.parts import VolumePart
from emsuite.workflow.plan import load_plan
from emsuite.workflow.step_orders import StepOrders

FIB25 = {"dataset": "fib25", "network": "small"}


def test_the_split_of_the_data_set_is_the_default() -> None:
    plan = load_plan(FIB25, ROOT)
    volume = Path("data/funke/fib25/training/trvol-250-2.zarr")
    assert plan.train_parts == [VolumePart(volume=volume, roi="0:1040,:,:")]
    assert plan.test_parts == {"trvol-250-2_z1040-1280": VolumePart(volume=volume, roi="1040:1280,:,:")}
    assert plan.volumes.manifest(volume) == [Path(f"{volume}.manifest.json")]


def test_published_networks_train_on_all_that_was_published() -> None:
    plan = load_plan({"dataset": "fib25", "network": "mtlsd", "test": "v.zarr"}, ROOT)
    folder = Path("data/funke/fib25/training")
    volumes = [folder / f"{name}.zarr" for name in ("trvol-250-1", "trvol-250-2", "tstvol-520-1", "tstvol-520-2")]
    assert plan.train_parts == [VolumePart(volume=volume) for volume in volumes]
    data = [word for volume in volumes for word in ("--data", str(volume))]
    chances = ["--set", "training.sampling.probabilities=[0.05, 0.05, 0.45, 0.45]"]
    assert plan.training_data_options == data + chances
    assert all(plan.volumes.manifest(volume) for volume in volumes), "the workflow fetches them"
    assert (
        load_plan({"dataset": "hemi", "network": "lsd", "test": "v.zarr"}, ROOT).training_data_options[::2]
        == ["--data"] * 8
    )
    own = load_plan({"dataset": "fib25", "network": "mtlsd", "train": "w.zarr", "test": "v.zarr"}, ROOT)
    assert own.training_data_options == ["--data", "w.zarr", "--set", "training.split=null"], (
        "the record tells no split"
    )


def test_another_split_by_name() -> None:
    small = load_plan(FIB25, ROOT)
    assert small.training_data_options == ["--data", "data/funke/fib25/training/trvol-250-2.zarr@0:1040,:,:"]
    slab = load_plan({"dataset": "fib25", "network": "mtlsd", "split": "slab"}, ROOT)
    assert (slab.train_parts, slab.test_parts) == (small.train_parts, small.test_parts)
    assert slab.training_data_options == [*small.training_data_options, "--set", "training.split='slab'"]


def test_own_volumes_replace_the_split() -> None:
    plan = load_plan(FIB25 | {"train": ["a/b.zarr", "c.zarr@:,0:80,:"], "test": "d.zarr", "iterations": 7}, ROOT)
    assert [part.argument for part in plan.train_parts] == ["a/b.zarr", "c.zarr@:,0:80,:"]
    assert list(plan.test_parts) == ["d"]
    assert plan.volumes.manifest(Path("a/b.zarr")) == []
    assert plan.results == Path("results/fib25/small/7")


def test_results_of_one_name_are_told_by_their_volumes() -> None:
    apart = load_plan(FIB25 | {"test": ["a/cube.zarr", "b/cube.zarr", "b/other.zarr"]}, ROOT)
    assert list(apart.test_parts) == ["a_cube", "b_cube", "other"]
    alike = ["x/first.zarr", "own/neg.zarr", "other/neg.zarr", "../own/neg.zarr"]
    told = "test: the results of own/neg.zarr and ../own/neg.zarr would all be called own_neg; rename one"
    with pytest.raises(BadInput, match=re.escape(told)):
        load_plan(FIB25 | {"test": alike}, ROOT)


def test_volumes_in_two_formats_are_told_by_their_names(tmp_path: Path) -> None:
    zarr, hdf5 = tmp_path / "neg.zarr", tmp_path / "neg.h5"
    with pytest.raises(BadInput, match=rf"the results of {zarr} and {hdf5} would all be called {tmp_path.name}_neg"):
        load_plan(FIB25 | {"test": ["a/first.zarr", str(zarr), str(hdf5)]}, ROOT)


def test_autocontext_waits_for_its_frozen_network() -> None:
    plan = load_plan({"dataset": "zebrafinch", "network": "aclsd", "split": "held_out"}, ROOT)
    assert plan.frozen_manifest("aclsd") == ["02_train/zebrafinch/lsd/checkpoints/checkpoint_400000.pt.manifest.json"]
    assert plan.frozen_manifest("lsd") == []
    order = StepOrders(plan).train("aclsd", 400_000)  # is made anew if another run made the frozen checkpoint
    assert order.reads == (Path("02_train/zebrafinch/lsd/checkpoints/checkpoint_400000.pt"),)


def test_the_plan_of_autocontext_counts_the_frozen_checkpoint_that_training_reads(tmp_path: Path) -> None:
    for name in ("lsd", "aclsd"):
        folder = copied_network(tmp_path, name)
    path = folder / "network.yaml"
    path.write_text(path.read_text().replace("iteration: 400000", "iteration: null"))
    split = {"dataset": "zebrafinch", "network": "aclsd", "split": "held_out"}
    plan = load_plan(split, tmp_path)
    assert plan.frozen_training("aclsd") == [("lsd", 400_000)]
    asked = plan.training_settings("aclsd")
    assert json.loads(asked)["autocontext"]["iteration"] == load_network(folder).autocontext.iteration == 400_000
    lsd = folder.with_name("lsd") / "network.yaml"
    lsd.write_text(lsd.read_text() + "  iterations: 300000\n")
    plan = load_plan(split, tmp_path)
    assert plan.frozen_training("aclsd") == [("lsd", 300_000)]
    assert plan.training_settings("aclsd") != asked


def copied_network(project: Path, name: str) -> Path:
    """The files of a network of zebra finch and of its data set, in another project."""
    folder = project / "02_train/zebrafinch" / name
    folder.mkdir(parents=True)
    shutil.copytree(ROOT / "01_data/datasets", project / "01_data/datasets", dirs_exist_ok=True)
    shutil.copy(ROOT / "02_train/zebrafinch/dataset.yaml", folder.parent)
    shutil.copy(ROOT / "02_train/zebrafinch" / name / "network.yaml", folder)
    return folder


def test_settings_of_segmentation_are_laid_over_those_of_the_data_set() -> None:
    plan = load_plan(FIB25 | {"segmentation": {"merge_function": "mean"}}, ROOT)
    assert plan.segmentation.merge_function == "mean"
    assert plan.segmentation.context == plan.dataset.segmentation.context is not None


def test_workers_are_processes_or_jobs_of_slurm() -> None:
    assert load_plan(FIB25, ROOT).workers_option(3) == ["--workers", "3"]
    plan = load_plan(FIB25 | {"segmentation": {"slurm": {"workers": 2, "account": "lab"}}}, ROOT)
    assert plan.workers_option(3) == ["--workers", "slurm", "--slurm", "workers=2", "--slurm", 'account="lab"']


def test_the_first_predicted_head_of_affinities_is_segmented(tmp_path: Path) -> None:
    assert load_plan(FIB25, ROOT).affinities_head == "affs"
    assert load_plan({"dataset": "zebrafinch", "network": "lsd", "test": "v.zarr"}, ROOT).affinities_head == "affs", (
        "it predicts none"
    )
    shutil.copytree(ROOT / "01_data/datasets", tmp_path / "01_data/datasets")
    shutil.copytree(ROOT / "02_train/fib25/small", tmp_path / "02_train/fib25/small")
    shutil.copy(ROOT / "02_train/fib25/dataset.yaml", tmp_path / "02_train/fib25")
    network = tmp_path / "02_train/fib25/small/network.yaml"
    network.write_text(
        "heads:\n"
        "  lsds: {target: lsds, sigma: 80}\n"
        "  near: {target: affinities, neighborhood: [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]}\n"
        "  far: {target: affinities, neighborhood: [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [0, 0, -9]]}\n"
    )
    assert load_plan(FIB25, tmp_path).affinities_head == "near"
    network.write_text(network.read_text() + "prediction: {heads: [far, lsds]}\n")
    assert load_plan(FIB25, tmp_path).affinities_head == "far"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"dataset": "fib52", "network": "small"}, "fib52.*there are .*fib25"),
        ({"dataset": "fib25", "network": "smal"}, "no network 'smal'.*small"),
        (FIB25 | {"split": "slap"}, "data set fib25: no split 'slap'; it has slab, published"),
        (
            {"dataset": "fib25", "network": "mtlsd"},
            "fib25: its split 'published' has no part to test on; name volumes with --config test=..., or another "
            "split with --config split=..., of slab",
        ),
        (FIB25 | {"test": "/lab/{a}@b/v.zarr"}, r"\{a\}@b/v.zarr: expected a name without braces and line breaks"),
        (FIB25 | {"train": ["/lab/{x}/v.zarr@0:80,:,:"]}, r"\{x\}/v.zarr: expected a name without braces"),
        (FIB25 | {"results": "out{1}"}, "results: expected a name without braces and line breaks"),
        (FIB25 | {"data": "a\nb"}, "data: expected a name without braces and line breaks"),
        (FIB25 | {"iteration": 3}, "config/config.yaml: iteration: unknown key"),
        (FIB25 | {"iterations": "many"}, "config/config.yaml: iterations: .*'many'"),
        (FIB25 | {"segmentation": {"flod": "affinity"}}, "segmentation: flod: unknown key"),
        (FIB25 | {"device": "gpu"}, "config/config.yaml: device: expected one of auto, cpu, cuda; it holds 'gpu'"),
        (
            FIB25 | {"segmentation": {"merge_function": "hist_quant_57"}},
            "config/config.yaml: segmentation: merge_function: expected one of mean, .*; it holds 'hist_quant_57'",
        ),
        (
            FIB25 | {"segmentation": {"seeds": "mutexes"}},
            "segmentation: seeds: expected one of distance, mutex; it holds 'mutexes'",
        ),
        (
            FIB25 | {"segmentation": {"thresholds": "0,2,.1"}},
            r"segmentation: thresholds: expected first <= last, both in \[0, 1\].*; it holds '0,2,.1'",
        ),
    ],
)
def test_a_wrong_configuration_is_named(config: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_plan(config, ROOT)


def test_files_on_a_web_server_are_ordered_by_address_and_checksum(tmp_path: Path) -> None:
    (tmp_path / "02_train").mkdir()
    shutil.copytree(ROOT / "02_train/cremi_phantom", tmp_path / "02_train/cremi")
    shutil.copytree(ROOT / "01_data/datasets", tmp_path / "01_data/datasets")
    plan = load_plan({"dataset": "cremi", "network": "small", "split": "cropped"}, tmp_path)
    url, sha256 = json.loads(StepOrders(plan).volume("sample_C_20160501").asked)["source"]
    assert url == "https://cremi.org/static/data/sample_C_20160501.hdf"
    assert sha256 == plan.dataset.files["sample_C_20160501"].sha256


def test_a_network_of_foreground_and_contours_is_decoded_to_instances() -> None:
    plan = load_plan(FIB25 | {"network": "instances", "segmentation": {"instances": {"decoding": "bc"}}}, ROOT)
    assert plan.instance_heads == {"foreground": "mask", "contour": "contour", "distance": "distance"}
    assert plan.segmentation.instances.decoding == "bc"
    assert load_plan(FIB25, ROOT).instance_heads == {}
    with pytest.raises(BadInput, match=r"segmentation: instances\.seeds: unknown key"):
        load_plan(FIB25 | {"segmentation": {"instances": {"seeds": 1}}}, ROOT)
