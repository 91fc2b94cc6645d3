import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from conftest import Ended
from emsuite.io.volume import create_volume, open_volume

SCRIPT = "01_data/create_masks.py"
Run = Callable[..., subprocess.CompletedProcess[str]]
Call = Callable[..., Ended]


def labelled(container: Path) -> Path:
    labels = create_volume(container / "volumes/labels/neuron_ids", (3, 4, 5), np.uint64, (8, 8, 8), (0, 0, 0))
    labels.array[:] = 7
    labels.array[1] = np.uint64(2**64 - 3)
    return container


def mask(container: Path) -> np.ndarray:
    return np.asarray(open_volume(container / "volumes/labels/labels_mask").array[:])


def test_rule_of_the_data_set_that_the_path_tells(call_script: Call, tmp_path: Path) -> None:
    hemi = labelled(tmp_path / "funke/hemi/training/a.zarr")
    fib25 = labelled(tmp_path / "funke/fib25/training/a.zarr")
    first = call_script(SCRIPT, hemi, "funke/fib25/training/a.zarr")
    assert first.code == 0, first.err
    assert first.out.count("written") == 2
    assert mask(hemi).mean(axis=(1, 2)).tolist() == [1, 0, 1]
    assert mask(fib25).all()
    assert hemi.with_name("a.zarr.masks.json").exists()
    second = call_script(SCRIPT, hemi, fib25)
    assert second.code == 0
    assert second.out.count("already there") == 2


def test_data_set_given_by_name_or_file(call_script: Call, tmp_path: Path) -> None:
    one, two = labelled(tmp_path / "one.zarr"), labelled(tmp_path / "two.zarr")
    (tmp_path / "own.yaml").write_text("{name: own, voxel_size: [8, 8, 8], volumes: [two], mask: {unlabelled: [7]}}")
    assert call_script(SCRIPT, one, "-d", "hemi").code == 0
    assert call_script(SCRIPT, two, "-d", "own.yaml").code == 0
    assert mask(one).mean(axis=(1, 2)).tolist() == [1, 0, 1]
    assert mask(two).mean(axis=(1, 2)).tolist() == [0, 1, 0]


def test_bad_input_is_one_line(call_script: Call, tmp_path: Path) -> None:
    container = labelled(tmp_path / "one.zarr")
    for arguments, message in [
        ([container], "its path does not tell the data set"),
        ([container, "-d", "mouse"], "no data set 'mouse'"),
        ([tmp_path / "missing.zarr", "-d", "hemi"], "missing.zarr: no such volume"),
        ([], "Missing argument"),
    ]:
        done = call_script(SCRIPT, *arguments)
        assert done.code == 2
        assert message in done.err
        assert len(done.err.strip().splitlines()) == 1
    assert not (container / "volumes/labels/labels_mask").exists()


def test_help_has_an_example(run_script: Run) -> None:
    assert "python 01_data/create_masks.py data/funke" in run_script(SCRIPT, "--help").stdout


def test_hdf5_files_are_read_in_place_and_get_no_mask(call_script: Call, tmp_path: Path) -> None:
    """Special ids are left out as labels are read; a rule with other ids needs a mask, which HDF5 files do not get."""
    file = tmp_path / "cremi_phantom/training/a.hdf"
    file.parent.mkdir(parents=True)
    with h5py.File(file, "w") as opened:
        opened["volumes/labels/neuron_ids"] = np.full((2, 3, 4), 2**64 - 1, np.uint64)
        opened["volumes/labels/neuron_ids"].attrs["resolution"] = [40.0, 4.0, 4.0]
    before = file.read_bytes()
    run = call_script(SCRIPT, file)
    assert run.code == 0, run.err
    assert f"{file}: needs no mask; [18446744073709551613, " in run.out
    (tmp_path / "own.yaml").write_text("{name: own, voxel_size: [8, 8, 8], volumes: [a], mask: {unlabelled: [7]}}")
    refused = call_script(SCRIPT, file, "--dataset", "own.yaml")
    assert refused.code == 2
    assert "masks are written into it" in refused.err
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["a.hdf"]
