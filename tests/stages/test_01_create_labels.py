"""01_data/create_labels.py, and the data set whose labels are made from membranes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from builders import ROOT
from conftest import Ended
from emsuite.config.dataset import load_dataset
from emsuite.io.volume import create_volume, open_volume

SCRIPT = "01_data/create_labels.py"
Call = Callable[..., Ended]


def drawn(container: Path, name: str = "volumes/labels/membranes") -> Path:
    membranes = create_volume(container / name, (3, 8, 40), np.uint8, (50, 4.6, 4.6), (0, 0, 0))
    membranes.array[...] = np.arange(40) == 20
    return container


def highest(container: Path) -> int:
    return int(open_volume(container / "volumes/labels/neuron_ids").read().max())


def test_by_options_or_by_the_data_set(call_script: Call, tmp_path: Path) -> None:
    plain, through = drawn(tmp_path / "a.zarr"), drawn(tmp_path / "b.zarr", "walls")
    done = call_script(SCRIPT, plain, "-d", "vnc")
    assert done.code == 0, done.err
    assert done.out == f"{plain}/volumes/labels/neuron_ids: written\n"
    assert highest(plain) == 6
    assert "already there" in call_script(SCRIPT, plain, "-d", "vnc").out
    assert call_script(SCRIPT, through, "--membranes", "walls", "--through-sections").code == 0
    assert highest(through) == 2


def test_bad_input_is_one_line(call_script: Call, tmp_path: Path) -> None:
    container = drawn(tmp_path / "a.zarr")
    for arguments, message in [
        ([container, "-d", "vnc", "--smallest", "2"], "--dataset says how labels are made"),
        ([container, "--smallest", "0"], "0 is not in the range"),
        ([tmp_path / "missing.zarr"], "missing.zarr: no such volume"),
        ([], "Missing argument"),
    ]:
        done = call_script(SCRIPT, *arguments)
        assert done.code == 2, done.err
        assert message in done.err
        assert len(done.err.strip().splitlines()) == 1
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
