"""04_segment/export.py as users run it: formats, a kill, bad input."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from builders import ROOT, files_in, write_array
from conftest import Ended
from emsuite.io.levels import levels_of
from emsuite.io.volume import open_volume

SCRIPT = "04_segment/export.py"
Call = Callable[..., Ended]


@pytest.fixture
def segmentation(tmp_path: Path) -> Path:
    """Segments of 8^3 to 16^3 voxels, in a zarr."""
    coarse = np.random.default_rng(0).integers(1, 40, (4, 5, 9), np.uint64)
    write_array(tmp_path / "s.zarr/segmentation", np.kron(coarse, np.ones((8, 8, 8), np.uint64)), (8, 8, 8), (0, 8, 80))
    return tmp_path / "s.zarr/segmentation"


def test_each_format_is_written(call_script: Call, segmentation: Path, tmp_path: Path) -> None:
    voxels = open_volume(segmentation).read()
    number = len(np.unique(voxels))
    done = call_script(SCRIPT, "--segmentation", segmentation, "--out", tmp_path / "x.precomputed", "--workers", 1)
    assert done.code == 0, done.err
    assert done.out == f"{number} segments; {tmp_path}/x.precomputed\n"
    np.testing.assert_array_equal(open_volume(tmp_path / "x.precomputed/8_8_8").read(), voxels)
    assert len(list((tmp_path / "x.precomputed/mesh").glob("*.index"))) == number
    done = call_script(SCRIPT, "--segmentation", segmentation, "--out", tmp_path / "t.csv", "--format", "csv")
    assert done.code == 0, done.err
    with open(tmp_path / "t.csv", newline="") as file:
        assert sum(int(row["voxels"]) for row in csv.DictReader(file)) == voxels.size
    for kind, to in (("ome-zarr", "o.zarr"), ("n5", "o.n5/s"), ("hdf5", "o.h5"), ("tiff", "o.tif")):
        done = call_script(SCRIPT, "--segmentation", segmentation, "--out", tmp_path / to, "--format", kind)
        assert done.code == 0, done.err
    np.testing.assert_array_equal(open_volume(tmp_path / "o.n5/s").read(), voxels)
    np.testing.assert_array_equal(open_volume(tmp_path / "o.zarr/segmentation").read(), voxels)
    np.testing.assert_array_equal(open_volume(tmp_path / "o.h5/volumes/labels/neuron_ids").read(), voxels)
    narrow = open_volume(tmp_path / "o.tif")
    np.testing.assert_array_equal(narrow.read(), voxels)
    assert (narrow.dtype, narrow.offset) == (np.uint32, (0, 8, 80))
    assert len(levels_of(tmp_path / "o.zarr/segmentation")) == 2


@pytest.mark.slow
@pytest.mark.parametrize("part", ["blocks_done", "segments_done"])
def test_a_killed_export_continues_and_gives_the_same_bytes(segmentation: Path, tmp_path: Path, part: str) -> None:
    def command(out: Path) -> list[str]:
        options = ("--segmentation", segmentation, "--out", out, "--block-size", "128,128,128", "--workers", "2")
        return [sys.executable, str(ROOT / SCRIPT), *map(str, options), "--skeletons"]

    subprocess.run(command(tmp_path / "whole.precomputed"), check=True)
    out = tmp_path / "killed.precomputed"
    stage = subprocess.Popen(command(out), stderr=subprocess.PIPE)
    assert stage.stderr is not None
    while not list((out / ".export" / part).glob("*.done")):
        assert stage.poll() is None, stage.stderr.read()
        time.sleep(0.002)
    workers = psutil.Process(stage.pid).children(recursive=True)
    os.kill(stage.pid, signal.SIGKILL)
    stage.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    blocks = {path: path.stat().st_mtime_ns for path in (out / ".export/blocks_done").glob("*.done")}
    assert blocks
    again = subprocess.Popen(command(out), stderr=subprocess.PIPE)
    _, said = again.communicate()
    assert again.returncode == 0, said
    assert f"{len(blocks)}/".encode() in said.splitlines()[0], "the blocks that were done are not done again"
    assert files_in(out) == files_in(tmp_path / "whole.precomputed")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--out", "x.zarr"), "x.zarr: expected a path of precomputed, with the ending .precomputed"),
        (("--out", "x.zarr", "--format", "hdf5"), "expected a path of hdf5, with the ending .h5 or .hdf or .hdf5"),
        (("--out", "x.csv", "--format", "csv", "--roi", "0:8"), "expected 3 as z0:z1,y0:y1,x0:x1"),
        (("--out", "x.precomputed", "--block-size", "7,8,8"), "expected multiples of the voxel size"),
        (("--out", "x.precomputed", "--segmentation", "no.zarr/s"), "no.zarr: no such volume"),
        (("--out", "x.precomputed", "--levels-of-detail", "9"), "9 is not in the range 0<=x<=8"),
        (
            ("--out", "s.zarr/x.precomputed", "--segmentation", "f.zarr/f"),
            "f.zarr/f: float32 (4, 4, 4), expected a ",
        ),
    ],
)
def test_bad_input_is_told_in_one_line(
    call_script: Call, segmentation: Path, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    write_array(tmp_path / "f.zarr/f", np.zeros((4, 4, 4), np.float32))
    done = call_script(SCRIPT, "--segmentation", "s.zarr/segmentation", *options, cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert done.err.count("\n") == 1
    assert not list(tmp_path.glob("*unfinished*"))


def test_a_coarser_level_is_exported(call_script: Call, segmentation: Path, tmp_path: Path) -> None:
    call_script(SCRIPT, "--segmentation", segmentation, "--out", tmp_path / "o.zarr", "--format", "ome-zarr")
    options = ("--segmentation", tmp_path / "o.zarr/segmentation", "--out", tmp_path / "x.h5", "--format", "hdf5")
    done = call_script(SCRIPT, *options, "--level", 1)
    assert done.code == 0, done.err
    coarse = open_volume(tmp_path / "x.h5/volumes/labels/neuron_ids")
    assert (coarse.shape, coarse.voxel_size) == ((16, 20, 36), (16, 16, 16))
    done = call_script(SCRIPT, *options, "--level", 5)
    assert (done.code, "has no level 5, expected one of 2 from 0 up" in done.err) == (2, True)


def test_ids_that_tiff_cannot_hold_are_refused(call_script: Call, tmp_path: Path) -> None:
    write_array(tmp_path / "l.zarr/l", np.full((4, 4, 4), 2**40, np.uint64))
    options = ("--segmentation", "l.zarr/l", "--out", "x.tif", "--format", "tiff")
    done = call_script(SCRIPT, *options, cwd=tmp_path)
    assert (done.code, "do not all fit uint32" in done.err, done.err.count("error")) == (2, True, 1)
    assert not (tmp_path / "x.tif").exists()


def test_a_folder_that_is_no_export_is_kept(call_script: Call, segmentation: Path, tmp_path: Path) -> None:
    (tmp_path / "x.precomputed").mkdir()
    (tmp_path / "x.precomputed/mine").touch()
    done = call_script(SCRIPT, "--segmentation", segmentation, "--out", tmp_path / "x.precomputed")
    assert (done.code, "was not made by this suite" in done.err) == (2, True)
    assert (tmp_path / "x.precomputed/mine").exists()
