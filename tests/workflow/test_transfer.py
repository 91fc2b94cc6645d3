"""The chain of domain transfer: its names, what it refuses before anything runs, and all of it with tiny networks."""

import csv
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders import ROOT, copy_project, write_array
from emsuite.common.errors import BadInput
from emsuite.common.outputs import manifest_path, unfinished_path
from emsuite.common.state.written import written
from emsuite.io.volume import LABELS, RAW, open_volume
from emsuite.workflow.transfer import load_transfer_plan
from workflow_runs import snakemake, snakemake_in_fork

VOLUMES = ("labelled", "other", "test")


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    """The least that a plan asks for, with volumes that are there."""
    for name in VOLUMES:
        write_array(tmp_path / f"{name}.zarr/volumes/raw", np.zeros((20, 8, 8), np.uint8))
        if name != "other":
            write_array(tmp_path / f"{name}.zarr/{LABELS}", np.ones((20, 8, 8), np.uint64))
    return {"data_name": "mine", "transfer": "fib25/ccgan_vanilla_small", "segmenter": "fib25/instances"} | {
        name: str(tmp_path / f"{name}.zarr") for name in VOLUMES
    }


def test_runs_are_named_by_model_data_configuration_and_hyper_parameters(given: dict[str, Any]) -> None:
    plan = load_transfer_plan(given | {"transfer_iterations": 35}, ROOT)
    assert plan.run == "cyclegan__mine__ccgan_vanilla_small__35I"
    assert plan.transfer_folder == Path(
        "02_train/fib25/ccgan_vanilla_small/runs/cyclegan__mine__ccgan_vanilla_small__35I"
    )
    assert plan.arm_run("transferred") == "cyclegan__mine__ccgan_vanilla_small__35I__transferred"
    assert plan.arm_run("as_it_is") == "segmenter__mine__as_it_is"  # no transfer decides it


def test_without_a_look_to_make_volumes_are_read_where_they_lie(given: dict[str, Any]) -> None:
    plan = load_transfer_plan(given | {"other_roi": "0:80,:,:"}, ROOT)
    assert plan.volume("b") == Path(given["other"])
    assert plan.waited_for("b") == [], "a user's own volume is no output"
    assert "0:80,:,:" in plan.domains[1]
    changed = load_transfer_plan(given | {"other_roi": "0:80,:,:", "look": "second_look"}, ROOT)
    assert changed.volume("b") == Path("data/transfer/mine/b.zarr")
    assert '"0:80,:,:"' not in changed.domains[1]  # the changed volume holds its region alone
    assert changed.looks["own"][0] == Path(given["labelled"])


def test_blocks_may_be_jobs_of_slurm(given: dict[str, Any]) -> None:
    assert load_transfer_plan(given, ROOT).workers_option(3) == ["--workers", "3"]
    keys = {"instances": {"decoding": "bc"}, "block_size": [80, 80, 80], "slurm": {"workers": 2}}
    plan = load_transfer_plan(given | {"segmentation": keys}, ROOT)
    assert plan.workers_option(3) == ["--workers", "slurm", "--slurm", "workers=2"]
    assert plan.decoding_options[-2:] == ["--block-size", "80,80,80"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"lok": "second_look"}, "lok"),
        ({"transfer": "fib25/instances"}, "expected a network with step: cyclegan"),
        ({"segmenter": "fib25/small"}, "predicts affs, long_affs, expected foreground and contour"),
        ({"arms": ["own"]}, "expected `look`, which makes it"),
        ({"other": "nowhere.zarr"}, "other: nowhere.zarr is not there"),
        ({"set": ["gamma=2"]}, "set: are keys of `look`"),
        ({"look": "second_look", "set": ["gamm=2"]}, "gamm"),
        ({"labelled_roi": "0:80"}, "labelled_roi"),
        ({"labelled_roi": "0:84,:,:"}, r"labelled.zarr/volumes/raw: \[0:84.*does not lie on the voxels"),
        ({"other_roi": "80:0,:,:"}, "'80:0' is empty"),
        ({"test_roi": "0:168,:,:"}, r"test.zarr/volumes/raw: covers \[0:160.* was asked for"),
        ({"labelled_roi": {"0:80,:,": 4}}, "labelled_roi"),
        ({"data_name": "../mine"}, "data_name"),
        ({"arms": []}, "arms"),
        ({"segmentation": {"blocks": 2}}, "config/transfer.yaml: segmentation: blocks"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(given: dict[str, Any], config: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as refused:
        load_transfer_plan(given | config, ROOT)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["labelled", "test"])
def test_missing_labels_are_told_before_anything_runs(given: dict[str, Any], name: str) -> None:
    shutil.rmtree(Path(given[name]) / LABELS)
    with pytest.raises(BadInput, match=rf"{name}.zarr: has no volumes/labels/neuron_ids, expected labels to train on"):
        load_transfer_plan(given, ROOT)


TRANSFER = """
step: cyclegan
voxel_size: [8, 8, 8]
transfer:
  generator: {kind: resnet, width: 4, blocks: 1}
  discriminator: {kind: patch, width: 4, layers: 1}
  domains: # the chain names the images
    a: {volumes: [{raw: a}], scaling: signed_unit_range}
    b: {volumes: [{raw: b}], scaling: signed_unit_range}
heads: {image: {target: transferred, output: tanh}}
training: {iterations: 2, input_shape: [1, 32, 32], sampling: {}}
prediction: {input_shape: [8, 64, 64]}
"""
SEGMENTER = """
voxel_size: [8, 8, 8]
unet: {num_fmaps: 4, fmap_inc_factor: 2, downsample_factors: [[2, 2, 2]], padding: same}
heads:
  mask: {target: foreground}
  contour: {target: contour, in_sections: false, width: 0}
training: {iterations: 2, input_shape: [16, 32, 32], sampling: {label_padding: [0, 0, 0]}}
prediction: {input_shape: [32, 64, 64]}
"""


RUN = "cyclegan__mine__transfer__2I"
ARM = f"results/transfer/{RUN}__transferred/2"
SEGMENTING = ["decode_instances", "evaluate", "predict"]
CHAIN = ["pair", "train_segmenter", "train_transfer", "transfer", *SEGMENTING]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, fib25_slab: Path) -> Path:
    """A project whose chain has run to its end, on three volumes of a user's own; as `named`."""
    project = copy_project(tmp_path_factory.mktemp("finished") / "project")
    for name, text in (("transfer", TRANSFER), ("segmenter", SEGMENTER)):
        (project / "02_train/mine" / name).mkdir(parents=True)
        (project / "02_train/mine" / name / "network.yaml").write_text(text)
    for name, place in zip(VOLUMES, (0, 256, 1040), strict=True):
        for array in (RAW, LABELS):
            voxels = open_volume(fib25_slab / array)
            part = voxels[place // 8 : place // 8 + 30, :64, :64]
            write_array(project / f"{name}.zarr" / array, part)
    done = snakemake(project, *named(), options=CHAIN_FILE)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "\ntransferred: VOI split" in done.stdout
    assert f"04_segment/view.py {ARM}\n" in done.stdout
    return project


def named(*more: str) -> list[str]:
    """The keys of the chain; the last of a name counts."""
    keys = {name: f"{name}.zarr" for name in VOLUMES}
    keys |= {"data_name": "mine", "labelled_roi": ":,:,:", "test_roi": "", "look": "", "transfer": "mine/transfer"}
    keys |= {"segmenter": "mine/segmenter"} | dict(one.split("=", 1) for one in more)
    return [f"{key}={value}" for key, value in keys.items()]


CHAIN_FILE = ("--snakefile", "transfer.smk")


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy that keeps the times, without Snakemake's memory; the user's volumes are the same files."""

    def copy(source: str, to: str) -> None:
        is_volume = Path(source).relative_to(finished).parts[0].endswith(".zarr")
        (os.link if is_volume else shutil.copy2)(source, to)

    memory = shutil.ignore_patterns(".snakemake")
    return Path(shutil.copytree(finished, tmp_path / "copy", ignore=memory, copy_function=copy))


def planned(project: Path, *more: str) -> list[str]:
    """The rules that would run now; and the folder as `told`."""
    done = snakemake_in_fork(project, *named(*more), options=(*CHAIN_FILE, "--dry-run"))
    assert done.returncode == 0, done.stderr[-3000:]
    return sorted(set(re.findall(r"^(?:local)?rule (\w+):", done.stdout + done.stderr, re.MULTILINE)) - {"all"})


@pytest.mark.slow
def test_the_chain_goes_from_two_looks_to_scores(project: Path) -> None:
    assert 0 < json.loads((project / ARM / "scores.json").read_text())["best"]["voi_sum"] < 20
    with (project / ARM / "scores.csv").open() as table:
        assert 0 <= float(next(csv.DictReader(table))["average_precision"]) <= 1
    assert planned(project) == []
    assert planned(project, "arms=[transferred,as_it_is]") == sorted(["train_segmenter", *SEGMENTING])
    for file in ("scores.csv", "scores.json", "report.html"):
        content = (project / ARM / file).read_bytes()
        (project / ARM / file).unlink()
        assert planned(project) == ["evaluate"]
        (project / ARM / file).write_bytes(content)
    (project / ARM / "segmentation.zarr.manifest.json").unlink()
    assert planned(project) == ["decode_instances", "evaluate"]


@pytest.mark.slow
@pytest.mark.parametrize(("swapped", "begun", "steps"), [
    (False, False, []), (True, False, SEGMENTING), (False, True, SEGMENTING), (True, True, SEGMENTING),
])  # fmt: skip
def test_a_prediction_that_is_gone_and_weights_that_were_made_anew(
    project: Path, swapped: bool, begun: bool, steps: list[str]
) -> None:
    """Somebody has removed it, or a step that was stopped as it began; scores alone do not tell of weights."""
    assert planned(project) == []
    prediction = project / ARM / "prediction.zarr"
    shutil.rmtree(prediction)
    manifest_path(prediction).unlink()
    if begun:
        unfinished_path(prediction).write_text("{}")
    if swapped:
        (checkpoint,) = (project / "02_train/mine/segmenter/runs").glob("*/checkpoints/checkpoint_2.pt")
        checkpoint.write_bytes(checkpoint.read_bytes() + b"other weights")
        record = json.loads(manifest_path(checkpoint).read_text())
        manifest_path(checkpoint).write_text(json.dumps(record | {"written": written(checkpoint)}))
    assert planned(project) == sorted(steps)


@pytest.mark.slow
def test_pairs_that_were_made_anew_by_the_same_order(project: Path) -> None:
    """A run that ends behind them leaves a segmenter of the former ones."""
    (checkpoint,) = (project / "02_train/mine/transfer/runs").glob("*/checkpoints/checkpoint_2.pt")
    content = torch.load(checkpoint, weights_only=False)
    for weights in content["networks"].values():
        for tensor in weights.values():
            tensor.mul_(-1.3)
    torch.save(content, checkpoint)
    done = snakemake_in_fork(project, *named(), options=(*CHAIN_FILE, "--until", "pair"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert planned(project) == sorted(["train_segmenter", *SEGMENTING])
    assert planned(project) == sorted(["train_segmenter", *SEGMENTING])


@pytest.mark.slow
def test_another_look_is_made_first(project: Path) -> None:
    """The second look of the labelled volume too, and three segmenters."""
    arms = "arms=[transferred,as_it_is,own]"
    done = snakemake_in_fork(project, *named("look=second_look", arms, "data_name=other"),
                             options=(*CHAIN_FILE, "--dry-run"))  # fmt: skip
    counts = " ".join(done.stdout.split())
    for counted in ("change_look 3", "train_transfer 1", "train_segmenter 3", "decode_instances 3", "evaluate 3"):
        assert counted in counts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("array", "steps"),
    [
        (f"labelled.zarr/{RAW}", CHAIN),
        (f"labelled.zarr/{LABELS}", ["pair", "train_segmenter", *SEGMENTING]),
        (f"other.zarr/{RAW}", CHAIN),
        (f"test.zarr/{RAW}", SEGMENTING),
        (f"test.zarr/{LABELS}", ["evaluate"]),
    ],
)
def test_an_edited_chunk_runs_the_steps_that_read_it(project: Path, array: str, steps: list[str]) -> None:
    """With the file as old as it was, as `cp -p` and `rsync` leave it."""
    chunk = min(file for file in (project / array).rglob("*") if file.is_file() and file.suffix != ".json")
    about, content = chunk.stat(), chunk.read_bytes()
    chunk.unlink()
    chunk.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(chunk, ns=(about.st_atime_ns, about.st_mtime_ns - 10**9))
    assert planned(project) == sorted(steps)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "steps"),
    [
        ("labelled_roi=0:120,:,:", CHAIN),
        ("other_roi=0:120,:,:", CHAIN),
        ("test_roi=0:120,:,:", SEGMENTING),
    ],
)
def test_an_edited_key_runs_the_steps_that_it_concerns(project: Path, key: str, steps: list[str]) -> None:
    assert planned(project, key) == sorted(steps)
    assert planned(project) == [], "a dry run of other settings leaves all as it is"
