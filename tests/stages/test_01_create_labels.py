"""01_data/create_labels.py, and the data set whose labels are made from membranes."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from builders import ROOT
from emsuite.config.dataset import load_dataset
from emsuite.io.volume import create_volume, open_volume

SCRIPT = "01_data/create_labels.py"
Run = Callable[..., subprocess.CompletedProcess[str]]


def drawn(container: Path, name: str = "volumes/labels/membranes") -> Path:
    membranes = create_volume(container / name, (3, 8, 40), np.uint8, (50, 4.6, 4.6), (0, 0, 0))
    membranes.array[...] = np.arange(40) == 20
    return container


def highest(container: Path) -> int:
    return int(open_volume(container / "volumes/labels/neuron_ids").read().max())


def test_by_options_or_by_the_data_set(run_script: Run, tmp_path: Path) -> None:
    plain, through = drawn(tmp_path / "a.zarr"), drawn(tmp_path / "b.zarr", "walls")
    done = run_script(SCRIPT, plain, "-d", "vnc")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{plain}/volumes/labels/neuron_ids: written\n"
    assert highest(plain) == 6
    assert "already there" in run_script(SCRIPT, plain, "-d", "vnc").stdout
    assert run_script(SCRIPT, through, "--membranes", "walls", "--through-sections").returncode == 0
    assert highest(through) == 2


def test_bad_input_is_one_line(run_script: Run, tmp_path: Path) -> None:
    container = drawn(tmp_path / "a.zarr")
    for arguments, message in [
        ([container, "-d", "vnc", "--smallest", "2"], "--dataset says how labels are made"),
        ([container, "--smallest", "0"], "0 is not in the range"),
        ([tmp_path / "missing.zarr"], "missing.zarr: no such volume"),
        ([], "Missing argument"),
    ]:
        done = run_script(SCRIPT, *arguments)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert not (container / "volumes/labels/neuron_ids").exists()


def test_the_data_set_of_the_nerve_cord_is_scored_in_sections() -> None:
    data = load_dataset("vnc", ROOT / "01_data/datasets")
    assert data.voxel_size == (50, 4.6, 4.6)
    assert (data.bucket, data.folder, data.synthesis) == (None, None, {})
    assert data.labels is not None
    assert not data.labels.through_sections
    settings = data.segmentation
    assert settings.in_sections
    assert settings.segments_in_sections
    assert settings.score_in_sections
    assert "NonCommercial" in data.licence
