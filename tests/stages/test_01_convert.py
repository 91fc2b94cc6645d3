"""01_data/convert.py and 01_data/make_pyramid.py as users run them: results, kills, two at once, bad input."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import pytest

from builders import ROOT, files_in
from conftest import Ended
from emsuite.data.downsample import downsample
from emsuite.io.levels import levels_of
from emsuite.io.volume import create_volume, open_volume

CONVERT, PYRAMID = "01_data/convert.py", "01_data/make_pyramid.py"
Run = Callable[..., subprocess.CompletedProcess[str]]
Call = Callable[..., Ended]
SMALL_BLOCKS = """
import runpy, sys
from emsuite.data import convert, pyramid
convert._BLOCK_BYTES = pyramid._MOST_BYTES = 1
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def cremi(folder: Path, shape: tuple[int, ...] = (20, 70, 150)) -> Path:
    """Raw and labels in HDF5, as CREMI's volumes come."""
    generator = np.random.default_rng(0)
    with h5py.File(folder / "cremi.hdf", "w") as file:
        raw = file.create_dataset("volumes/raw", data=generator.integers(0, 255, shape, np.uint8), chunks=True)
        labels = file.create_dataset("volumes/labels/neuron_ids", data=generator.integers(0, 5, shape, np.uint64))
        for dataset in (raw, labels):
            dataset.attrs.update({"resolution": (40.0, 4.0, 4.0), "offset": (40.0, 8.0, 0.0)})
    return folder / "cremi.hdf"


def in_small_blocks(script: str, *arguments: Any) -> list[str]:
    return [sys.executable, "-c", SMALL_BLOCKS, str(ROOT / script), *map(str, arguments)]


def kill_between_blocks(command: list[str], blocks: Path) -> set[str]:
    """Kill a run, with all its workers, when it has done a block; return what it had done."""
    stage = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert stage.stderr is not None
    while not (blocks.exists() and any(blocks.glob("*.done"))):
        assert stage.poll() is None, stage.stderr.read()
        time.sleep(0.002)
    workers = psutil.Process(stage.pid).children(recursive=True)
    os.kill(stage.pid, signal.SIGKILL)
    stage.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    return {file.name for file in blocks.glob("*.done")}


def test_hdf5_becomes_zarr_with_levels(call_script: Call, tmp_path: Path) -> None:
    source = cremi(tmp_path)
    to = tmp_path / "mine/cremi.zarr/volumes"
    first = call_script(CONVERT, source / "volumes/raw", to / "raw", "--levels", 2, "--workers", 1)
    assert first.code == 0, first.err
    assert first.out.startswith("copied and compared, digest ")
    second = call_script(CONVERT, source / "volumes/labels/neuron_ids", to / "labels/neuron_ids", "--dtype", "uint32")
    assert second.code == 0, second.err
    raw, labels = open_volume(to / "raw"), open_volume(to / "labels/neuron_ids")
    np.testing.assert_array_equal(raw.read(), open_volume(source / "volumes/raw").read())
    np.testing.assert_array_equal(labels.read(), open_volume(source / "volumes/labels/neuron_ids").read())
    assert (tuple(raw.voxel_size), tuple(raw.offset), labels.dtype) == ((40, 4, 4), (40, 8, 0), np.uint32)
    third = call_script(PYRAMID, to / "labels/neuron_ids", "--kind", "mode", "--levels", 1)
    assert third.code == 0, third.err
    assert third.out == f"1 levels of {to}/labels/neuron_ids; {to}/labels/neuron_ids_levels\n"
    coarse = open_volume(levels_of(to / "labels/neuron_ids")[1])
    np.testing.assert_array_equal(coarse.read(), downsample(labels.read(), (1, 2, 2), "mode"))
    last = call_script(CONVERT, to / "raw", tmp_path / "coarse.zarr/raw", "--level", 2, "--zarr-format", 2)
    assert last.code == 0, last.err
    copy = open_volume(tmp_path / "coarse.zarr/raw")
    np.testing.assert_array_equal(copy.read(), open_volume(levels_of(to / "raw")[2]).read())


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_copy_continues_and_gives_the_same_bytes(call_script: Call, tmp_path: Path, workers: int) -> None:
    source = cremi(tmp_path) / "volumes/raw"
    options = ("--chunks", "8,16,16", "--workers", workers)
    whole, to = tmp_path / "whole/v.zarr", tmp_path / "killed/v.zarr"
    assert subprocess.run(in_small_blocks(CONVERT, source, whole / "raw", *options), check=True)
    done = kill_between_blocks(in_small_blocks(CONVERT, source, to / "raw", *options), to.parent / "v.zarr.raw")
    assert 0 < len(done) < 150
    assert not (to / "raw").exists(), "another name until it is complete"
    before = {name: (to.parent / "v.zarr.raw" / name).stat().st_mtime_ns for name in done}
    other = call_script(PYRAMID, to / "raw")
    assert (other.code, "v.zarr.raw: unfinished" in other.err) == (2, True)
    assert kill_between_blocks(in_small_blocks(CONVERT, source, to / "raw", *options), to.parent / "v.zarr.raw") >= done
    assert before == {name: (to.parent / "v.zarr.raw" / name).stat().st_mtime_ns for name in done}, "not done again"
    subprocess.run(in_small_blocks(CONVERT, source, to / "raw", *options), check=True)
    assert files_in(to) == files_in(whole)
    assert not list(to.parent.glob("*unfinished*"))


@pytest.mark.slow
def test_a_killed_pyramid_continues_and_gives_the_same_bytes(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 9, (130, 260, 260), np.uint8)
    for name in ("whole", "killed"):
        create_volume(tmp_path / f"{name}.zarr/raw", voxels.shape, np.uint8, (8, 8, 8), (0, 0, 0)).array[...] = voxels
    command = in_small_blocks(PYRAMID, tmp_path / "killed.zarr/raw", "--workers", 2)
    kill_between_blocks(command, tmp_path / "killed.zarr.raw_levels/1")
    assert levels_of(tmp_path / "killed.zarr/raw") == [tmp_path / "killed.zarr/raw"], "none is listed yet"
    subprocess.run(command, check=True)
    subprocess.run(in_small_blocks(PYRAMID, tmp_path / "whole.zarr/raw", "--workers", 1), check=True)
    assert files_in(tmp_path / "killed.zarr") == files_in(tmp_path / "whole.zarr")


@pytest.mark.slow
@pytest.mark.parametrize("script", [CONVERT, PYRAMID])
def test_a_second_run_at_the_same_time_is_refused(run_script: Run, tmp_path: Path, script: str) -> None:
    voxels = np.random.default_rng(0).integers(0, 9, (100, 300, 300), np.uint8)
    volume = create_volume(tmp_path / "v.zarr/raw", voxels.shape, np.uint8, (8, 8, 8), (0, 0, 0))
    volume.array[...] = voxels
    arguments = (volume.path, tmp_path / "to.zarr/raw") if script == CONVERT else (volume.path,)
    blocks = tmp_path / ("to.zarr.raw" if script == CONVERT else "v.zarr.raw_levels/1")
    first = subprocess.Popen(in_small_blocks(script, *arguments, "--workers", 1), stderr=subprocess.DEVNULL)
    while not (blocks.exists() and any(blocks.glob("*.done"))):
        assert first.poll() is None
        time.sleep(0.002)
    os.kill(first.pid, signal.SIGSTOP)
    try:
        second = run_script(script, *arguments)
        assert second.returncode == 2
        assert "another run is writing it (process " in second.stderr
        assert len(second.stderr.strip().splitlines()) == 1
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert first.wait(60) == 0


def test_a_file_without_a_voxel_size_is_copied_with_one(call_script: Callable[..., Any], tmp_path: Path) -> None:
    voxels = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
    with h5py.File(tmp_path / "snemi.h5", "w") as file:
        file["main"] = voxels
    done = call_script(CONVERT, "snemi.h5/main", "to.tif", "--voxel-size", "29.4,6,6", "--offset", "0,12,6")
    assert done.code == 0, done.err
    copy = open_volume(tmp_path / "to.tif")
    assert [float(n) for n in (*copy.voxel_size, *copy.offset)] == [29.4, 6, 6, 0, 12, 6]
    np.testing.assert_array_equal(copy.read(), voxels)
    assert "--voxel-size" in call_script(CONVERT, "snemi.h5/main", "other.tif").err


@pytest.mark.parametrize(
    ("script", "arguments", "line"),
    [
        (CONVERT, ("no.zarr/raw", "to.zarr/raw"), "no.zarr: no such volume; expected a zarr folder"),
        (CONVERT, ("cremi.hdf", "to.zarr/raw"), "cremi.hdf: has no array ''; it holds"),
        (CONVERT, ("cremi.hdf/volumes/raw", "to.zarr"), "to.zarr: expected an array in a format that can be written"),
        (CONVERT, ("cremi.hdf/volumes/raw", "to.tif/raw"), "to.tif: a TIFF file is one array without a name"),
        (CONVERT, ("cremi.hdf/volumes/raw", "to.tif", "--dtype", "int64"), "to.tif: TIFF with OME's metadata holds no"),
        (CONVERT, ("cremi.hdf/volumes/raw", "to.tif", "--levels", 1), "to.tif: HDF5 and TIFF have no coarser levels"),
        (CONVERT, ("cremi.hdf/volumes/raw", "cremi.hdf/volumes"), "'volumes' is a group of arrays"),
        (CONVERT, ("cremi.hdf/volumes/raw", "to.zarr/raw", "--level", 1), "has no level 1, expected one of 1"),
        (CONVERT, ("cremi.hdf/volumes/raw", "to.zarr/raw", "--roi", "0:9"), "1 ranges, expected 3"),
        (CONVERT, ("cremi.hdf/volumes/raw", "to.zarr/raw", "--dtype", "complex64"), "'complex64' is not one of"),
        (CONVERT, ("cremi.hdf/volumes/raw", "to.zarr/raw", "--chunks", "8,8"), "expected three whole numbers"),
        (CONVERT, ("cremi.hdf/volumes/raw", "to.zarr/raw", "--dtype", "bool"), "do not all fit bool"),
        (CONVERT, ("cremi.hdf/volumes/raw",), "Missing argument 'TO'"),
        (PYRAMID, ("cremi.hdf/volumes/raw",), "volumes/raw: expected an array in zarr with axes (c), z, y, x"),
        (PYRAMID, ("no.zarr/raw",), "no.zarr: no such volume"),
        (PYRAMID, (), "Missing argument 'ARRAY'"),
    ],
)
def test_bad_input_is_one_line(
    call_script: Callable[..., Any], tmp_path: Path, script: str, arguments: tuple[Any, ...], line: str
) -> None:
    cremi(tmp_path, (4, 5, 6))
    done = call_script(script, *arguments, *(() if not arguments else ("--workers", 1)))
    assert done.code == 2, done.err
    message = [text for text in done.err.strip().splitlines() if text.startswith("error: ")]
    assert len(message) == 1
    assert line in message[0]
    assert not (tmp_path / "to.zarr/raw").exists()
