"""HDF5 files in CREMI's layout through the real Snakefile, read where they lie: from a synthesized file to scores."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from conftest import Ended
from emsuite.io.volume import open_volume
from workflow_runs import snakemake, snakemake_in_fork


def shrink_sections(project: Path) -> None:
    """Smaller volumes, and a network of fewer features."""
    volumes, network = project / "01_data/datasets/cremi_phantom.yaml", project / "02_train/cremi_phantom/dataset.yaml"
    text = re.sub(r"shape: \[.*?\]", "shape: [24, 160, 160]", volumes.read_text())
    volumes.write_text(text.replace("[4, 40, 40]", "[4, 8, 8]"))
    text = network.read_text().replace("num_fmaps: 24", "num_fmaps: 6").replace("max_fmaps: 96", "max_fmaps: 12")
    network.write_text(text)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sections_of_the_suite_and_of_a_user_are_trained_and_scored_on(
    project: Path, tmp_path: Path, call_script: Callable[..., Ended]
) -> None:
    shrink_sections(project)
    files = [tmp_path / f"{name}.hdf" for name in ("one", "other")]
    for seed, file in enumerate(files):
        options = ("--voxel-size", "40,4,4", "--shape", "24,160,160", "--padding", "4,8,8", "--unlabelled", "0.1")
        made = call_script("01_data/synthesize.py", "--out", file, "--seed", seed, *options)
        assert made.code == 0, made.err
    ours = project / "my data/funke/cremi_phantom/training"
    train, test = ([f"my data/funke/cremi_phantom/training/sections-{part}.hdf", str(file)]
                   for part, file in zip(("train", "test"), files, strict=True))  # fmt: skip
    config = (
        "dataset=cremi_phantom",
        "network=small",
        "iterations=3",
        "data=my data",
        f"train={train}",
        f"test={test}",
    )
    done = snakemake(project, *config)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {path.name for path in ours.glob("*.hdf")} == {"sections-train.hdf", "sections-test.hdf"}
    results = project / "results/cremi_phantom/small/3"
    for volume in (ours / "sections-test.hdf", files[1]):
        assert f"{volume.stem}, held out: VOI split" in done.stdout
        raw, labels = open_volume(volume / "volumes/raw"), open_volume(volume / "volumes/labels/neuron_ids")
        assert open_volume(results / volume.stem / "prediction.zarr/affs").roi == raw.roi
        assert labels.roi != raw.roi
        assert np.isin(labels.read(), [2**64 - 1, 2**64 - 2, 2**64 - 3]).any()
        del raw, labels  # HDF5 opens no file to write that is open to read
        scores = json.loads((results / volume.stem / "scores.json").read_text())
        assert scores["provenance"]["settings"]["roi"] == "160:800,32:608,32:608", "where there are labels"
        assert not list(volume.parent.glob("*mask*")), "nothing is written beside what is read in place"
    again = snakemake_in_fork(project, *config)
    assert "Nothing to be done" in again.stdout + again.stderr
    for number, volume in enumerate((ours / "sections-test.hdf", files[1]), 1):
        with h5py.File(volume, "r+") as file:
            file["volumes/labels/neuron_ids"][0, 0, 0] ^= 1
        edited = snakemake_in_fork(project, *config, options=("-n",))
        runs = dict(re.findall(r"^(\w+) +(\d)$", edited.stdout, re.MULTILINE))
        assert runs["predict"] == runs["evaluate"] == str(number), "a file is one input"
