"""HDF5 files in CREMI's layout through the real Snakefile, read where they lie: from a synthesized file to scores."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from emsuite.io.volume import open_volume
from workflow_runs import snakemake


def shrink_sections(project: Path) -> None:
    path = project / "01_data/datasets/cremi_phantom.yaml"
    path.write_text(
        re.sub(r"shape: \[.*?\]", "shape: [24, 160, 160]", path.read_text()).replace("[4, 40, 40]", "[4, 8, 8]")
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sections_from_nothing_to_scores(project: Path) -> None:
    shrink_sections(project)
    config = ("dataset=cremi_phantom", "network=small", "iterations=3", "data=my data")
    done = snakemake(project, *config)
    assert done.returncode == 0, done.stderr[-3000:]
    volume = project / "my data/funke/cremi_phantom/training/sections-test.hdf"
    results = project / "results/cremi_phantom/small/3/sections-test"
    prediction = open_volume(results / "prediction.zarr/affs")
    raw, labels = open_volume(volume / "volumes/raw"), open_volume(volume / "volumes/labels/neuron_ids")
    assert prediction.roi == raw.roi
    assert labels.roi != raw.roi
    scores = json.loads((results / "scores.json").read_text())
    assert "VOI split" in done.stdout
    assert scores["provenance"]["settings"]["roi"] == "160:800,32:608,32:608", "where there are labels"
    assert not list(volume.parent.glob("*mask*")), "nothing is written beside what is read in place"
    again = snakemake(project, *config)
    assert "Nothing to be done" in again.stdout + again.stderr
    with h5py.File(volume, "r+") as file:
        file["volumes/labels/neuron_ids"][0, 0, 0] = 2**64 - 1
    edited = snakemake(project, *config, options=("-n",))
    assert {"predict", "evaluate"} <= set(re.findall(r"^(\w+) +1$", edited.stdout, re.MULTILINE)), "a file is one input"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_files_of_a_users_own_are_trained_and_scored_on(
    project: Path, tmp_path: Path, run_script: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    shrink_sections(project)
    files = [tmp_path / f"{name}.hdf" for name in ("one", "other")]
    for seed, file in enumerate(files):
        options = ("--voxel-size", "40,4,4", "--shape", "24,160,160", "--padding", "4,8,8", "--unlabelled", "0.1")
        made = run_script("01_data/synthesize.py", "--out", file, "--seed", seed, *options)
        assert made.returncode == 0, made.stderr
    config = ("dataset=cremi_phantom", "network=small", "iterations=2", f"train={files[0]}", f"test={files[1]}")
    done = snakemake(project, *config)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "other, held out: VOI split" in done.stdout
    labels = open_volume(files[1] / "volumes/labels/neuron_ids").read()
    assert np.isin(labels, [2**64 - 1, 2**64 - 2, 2**64 - 3]).any()
