"""The chain of domain transfer: its names, what it refuses before anything runs, and all of it with tiny networks."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from builders import ROOT
from emsuite.common.errors import BadInput
from emsuite.workflow.transfer import load_transfer_plan

VOLUMES = ("labelled", "other", "test")


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    """The least that a plan asks for, with volumes that are there."""
    for name in VOLUMES:
        (tmp_path / name).mkdir()
    return {"data_name": "mine", "transfer": "fib25/ccgan_vanilla_small", "segmenter": "fib25/instances"} | {
        name: str(tmp_path / name) for name in VOLUMES
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
    assert plan.waited_for("b", "test") == [Path(given["other"]), Path(given["test"])]
    assert "0:80,:,:" in plan.domains[1]
    changed = load_transfer_plan(given | {"other_roi": "0:80,:,:", "look": "second_look"}, ROOT)
    assert changed.volume("b") == Path("data/transfer/mine/b.zarr")
    assert '"0:80,:,:"' not in changed.domains[1]  # the changed volume holds its region alone
    assert changed.looks["own"][0] == Path(given["labelled"])


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
        ({"data_name": "../mine"}, "data_name"),
        ({"arms": []}, "arms"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(given: dict[str, Any], config: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as refused:
        load_transfer_plan(given | config, ROOT)
    assert "\n" not in str(refused.value)


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


@pytest.mark.slow
def test_the_chain_goes_from_two_looks_to_scores(project: Path, fib25_slab: Path) -> None:
    for name, text in (("transfer", TRANSFER), ("segmenter", SEGMENTER)):
        (project / "02_train/mine" / name).mkdir(parents=True)
        (project / "02_train/mine" / name / "network.yaml").write_text(text)
    config = ["data_name=mine", f"labelled={fib25_slab}", "labelled_roi=0:256,0:512,0:512", f"other={fib25_slab}",
              "other_roi=256:512,0:512,0:512", f"test={fib25_slab}", "test_roi=1040:1280,0:512,0:512",
              "transfer=mine/transfer", "segmenter=mine/segmenter"]  # fmt: skip
    command = [sys.executable, "-m", "snakemake", "--snakefile", "transfer.smk", "--cores", "2", "--config", *config]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results = project / "results/transfer/cyclegan__mine__transfer__2I__transferred/2"
    assert 0 < json.loads((results / "scores.json").read_text())["best"]["voi_sum"] < 20
    with (results / "scores.csv").open() as table:
        assert 0 <= float(next(csv.DictReader(table))["average_precision"]) <= 1

    def planned(*more: str) -> str:
        return subprocess.run([*command, *more, "-n"], cwd=project, capture_output=True, text=True, check=True).stdout

    assert "Nothing to be done" in planned()
    # the second look of the labelled volume, and two segmenters
    others = " ".join(planned("arms=[transferred,as_it_is,own]").split())
    for counted in ("change_look 1", "train_segmenter 2", "decode_instances 2", "evaluate 2", "total 10"):
        assert counted in others
    (results / "scores.csv").unlink()
    (results / "segmentation.zarr.manifest.json").unlink()
    again = planned()
    assert "decode_instances" in again
    assert "train_transfer" not in again
