"""01_data/synthesize.py as a user runs it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from builders import ROOT
from emsuite.data.labels_mask import MaskRule, create_mask, masks_path
from emsuite.io.skeletons import load_skeletons
from emsuite.io.volume import open_volume
from emsuite.phantom.settings import PhantomSettings
from emsuite.phantom.synthesize import synthesize

SCRIPT = "01_data/synthesize.py"
SMALL = ("--shape", "24,32,40", "--voxel-size", "8,8,8", "--seed", "9")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_it_writes_what_the_library_makes(call_script, tmp_path: Path):
    run = call_script(SCRIPT, "--out", "made/one.zarr", *SMALL)
    assert run.code == 0, run.err
    expected = synthesize(PhantomSettings(shape=(24, 32, 40), seed=9))
    raw = open_volume(tmp_path / "made/one.zarr/volumes/raw")
    labels = open_volume(tmp_path / "made/one.zarr/volumes/labels/neuron_ids")
    assert np.array_equal(raw.read(), expected.raw)
    assert np.array_equal(labels.read(), expected.labels)
    assert labels.dtype == np.uint64
    assert tuple(raw.voxel_size) == tuple(labels.voxel_size) == (8, 8, 8)
    skeletons = load_skeletons(tmp_path / "made/one.skeletons")
    assert np.array_equal(skeletons.positions, expected.skeletons.positions)
    assert np.array_equal(skeletons.edges, expected.skeletons.edges)
    for name in ("one.zarr", "one.skeletons"):
        manifest = json.loads((tmp_path / f"made/{name}.manifest.json").read_text())
        assert manifest["seed"] == 9
        assert manifest["settings"]["shape"] == [24, 32, 40]
    again = call_script(SCRIPT, "--out", "made/one.zarr", *SMALL)
    assert "already there" in again.out
    assert again.code == 0


def test_an_hdf5_file_has_the_layout_of_cremis(call_script, tmp_path: Path):
    """As cremi_python's CremiFile writes it: names, types, attributes; clefts are 2**64 - 1 where there is none."""
    sections = ("--voxel-size", "40,4,4", "--shape", "12,60,50", "--padding", "2,10,5", "--unlabelled", "0.1")
    run = call_script(SCRIPT, "--out", "made/one.hdf", *sections)
    assert run.code == 0, run.err
    with h5py.File(tmp_path / "made/one.hdf") as file:
        assert dict(file.attrs) == {"file_format": "0.2"}
        found = {}
        file.visititems(lambda name, item: found.update({name: item} if isinstance(item, h5py.Dataset) else {}))
        assert {name: (item.shape, item.dtype.str) for name, item in found.items()} == {
            "volumes/raw": ((12, 60, 50), "|u1"),
            "volumes/labels/neuron_ids": ((8, 40, 40), "<u8"),
            "volumes/labels/clefts": ((8, 40, 40), "<u8"),
        }
        for name, item in found.items():
            assert item.compression == "gzip"
            expected = {"resolution": [40.0, 4.0, 4.0]}
            expected |= {"offset": [80.0, 40.0, 20.0]} if "labels" in name else {}
            assert {key: value.tolist() for key, value in item.attrs.items()} == expected
            assert all(value.dtype == np.float64 for value in item.attrs.values())
        assert (found["volumes/labels/clefts"][:] == 2**64 - 1).all()
    phantom = synthesize(PhantomSettings(
        voxel_size=(40, 4, 4), shape=(12, 60, 50), padding=(2, 10, 5), unlabelled=0.1))  # fmt: skip
    labels = open_volume(tmp_path / "made/one.hdf/volumes/labels/neuron_ids")
    assert np.array_equal(labels.read(), phantom.labels)
    assert (tuple(labels.voxel_size), tuple(labels.offset)) == ((40, 4, 4), (80, 40, 20))
    assert np.array_equal(open_volume(tmp_path / "made/one.hdf/volumes/raw").read(), phantom.raw)
    assert "already there" in call_script(SCRIPT, "--out", "made/one.hdf", *sections).out
    assert call_script(SCRIPT, "--out", "again.hdf", *sections).code == 0
    assert (tmp_path / "again.hdf").read_bytes() == (tmp_path / "made/one.hdf").read_bytes()


def test_a_phantom_of_an_earlier_version_is_kept(call_script, tmp_path: Path):
    """Its manifest lacks the keys that came later, whose defaults it was made with."""
    assert call_script(SCRIPT, "--out", "v.zarr", *SMALL).code == 0
    for name in ("v.zarr", "v.skeletons"):
        manifest = tmp_path / f"{name}.manifest.json"
        record = json.loads(manifest.read_text())
        for key in ("padding", "unlabelled"):
            del record["settings"][key]
        manifest.write_text(json.dumps(record))
    assert "already there" in call_script(SCRIPT, "--out", "v.zarr", *SMALL).out


def test_help_shows_an_example(run_script):
    run = run_script(SCRIPT, "--help")
    assert run.returncode == 0
    assert "Example:" in run.stdout
    assert "--missing-sections" in run.stdout


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--out", "v.zarr", "--shape", "24,32"), "--shape"),
        (("--out", "v.zarr", "--shape", "24,32,4"), "--shape (24, 32, 4): "),
        (("--out", "v.zarr", "--shifted-sections", "0.1"), "--max-shift 0: "),
        (("--out", "v.n5"), "--out v.n5: expected a name that ends in .zarr, .hdf, .h5 or .hdf5"),
        (("--out", "v.hdf", "--padding", "0,-1,0"), "expected three whole numbers from 0 on"),
        (("--out", "v.hdf", "--shape", "24,32,40", "--padding", "2,16,2"), "--padding (2, 16, 2): leaves no voxel"),
    ],
)
def test_bad_options_get_one_line_and_leave_nothing(call_script, tmp_path: Path, options, line: str):
    run = call_script(SCRIPT, *options)
    assert run.code == 2
    assert run.err.startswith("error: ")
    assert run.err.count("\n") == 1
    assert line in run.err
    assert list(tmp_path.iterdir()) == []


def test_it_does_not_replace_what_it_did_not_make(call_script, tmp_path: Path):
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr/precious").write_text("data")
    run = call_script(SCRIPT, "--out", "mine.zarr", *SMALL)
    assert run.code == 2
    assert (tmp_path / "mine.zarr/precious").read_text() == "data"


def test_a_killed_run_leaves_nothing_that_looks_whole(run_script, tmp_path: Path):
    command = [sys.executable, str(ROOT / SCRIPT), "--out", str(tmp_path / "v.zarr"), *SMALL]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not (tmp_path / "v.zarr.unfinished.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "v.zarr.manifest.json").exists()
    assert not (tmp_path / "v.skeletons.manifest.json").exists()
    assert run_script(SCRIPT, "--out", "v.zarr", *SMALL).returncode == 0
    assert run_script(SCRIPT, "--out", "w.zarr", *SMALL).returncode == 0
    assert files(tmp_path / "v.zarr") == files(tmp_path / "w.zarr")
    assert files(tmp_path / "v.skeletons") == files(tmp_path / "w.skeletons")
    assert not list(tmp_path.glob("*.unfinished.json"))


def test_a_volume_that_got_its_mask_can_be_made_anew(run_script, tmp_path: Path):
    """The mask is the suite's own, of the former labels; one that somebody has painted into is in the way."""
    volume = tmp_path / "made/one.zarr"
    assert run_script(SCRIPT, "--out", "made/one.zarr", *SMALL).returncode == 0
    create_mask(volume, MaskRule())
    other = run_script(SCRIPT, "--out", "made/one.zarr", *SMALL[:-1], "10")
    assert other.returncode == 0, other.stderr
    assert not masks_path(volume).exists()
    assert not (volume / "volumes/labels/labels_mask").exists()
    create_mask(volume, MaskRule())
    mask = open_volume(volume / "volumes/labels/labels_mask", "r+")
    mask.array[3] = 0
    refused = run_script(SCRIPT, "--out", "made/one.zarr", *SMALL)
    assert refused.returncode == 2
    assert "labels_mask" in refused.stderr
    assert mask.read()[3].max() == 0
