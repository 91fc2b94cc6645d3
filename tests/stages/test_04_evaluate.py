import csv
import json
import os
import subprocess
import sys
import time

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from builders import ROOT
from emsuite.io.skeletons import Skeletons
from emsuite.io.volume import create_volume, open_volume

SCRIPT = "04_segment/evaluate.py"


@pytest.fixture(scope="module")
def sweep(fib25_slab, tmp_path_factory):
    """30 sections of FIB-25, cut into boxes; at 0.3 the boxes of a neuron are joined, at 0.6 all are."""
    folder = tmp_path_factory.mktemp("sweep")
    labels = open_volume(fib25_slab / "volumes/labels/neuron_ids")
    voxels = labels.array[100:130]
    z, y, x = np.indices(voxels.shape)
    neuron = np.unique(voxels, return_inverse=True)[1]
    fragments = np.where(voxels > 0, ((neuron * 2 + z // 20) * 5 + y // 50) * 5 + x // 50 + 1, 0).astype(np.uint64)
    made = create_volume(folder / "fragments.zarr/fragments", voxels.shape, np.uint64, labels.voxel_size, (800, 0, 0))
    made.write(made.roi, fragments)
    ids = np.unique(fragments[fragments > 0])
    table = pyarrow.table({"fragment": ids, "0.1": ids, "0.3": (ids - 1) // 50 + 1, "0.6": ids * 0 + 1})
    (folder / "lookup").mkdir()
    pyarrow.parquet.write_table(table, folder / "lookup/segments.parquet")
    (folder / "lookup.manifest.json").write_text('{"settings": {}, "fragments_digest": "d", "merge_function": "mean"}')
    return folder


@pytest.fixture
def evaluate(sweep, fib25_slab, call_script, tmp_path):
    """Run the script on the sweep; an option that is None is left out."""

    def run(*more, **changed):
        given = {
            "fragments": "fragments.zarr/fragments",
            "lookup": "lookup",
            "labels": fib25_slab / "volumes/labels/neuron_ids",
            "out": tmp_path / "scores",
        } | changed
        words = [word for name, value in given.items() if value for word in (f"--{name}", value)]
        return call_script(SCRIPT, *words, *more, cwd=sweep)

    return run


def test_scores_a_sweep_on_real_labels(evaluate, fib25_slab, tmp_path):
    ended = evaluate(raw=fib25_slab / "volumes/raw")
    assert ended.code == 0, ended.err
    with open(tmp_path / "scores/scores.csv", newline="") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    assert [row["threshold"] for row in rows] == [0.1, 0.3, 0.6]
    assert rows[0]["voi_split"] > 2
    assert rows[0]["voi_merge"] == rows[1]["voi_sum"] == rows[2]["voi_split"] == 0
    assert rows[2]["voi_merge"] > 2
    best = json.loads((tmp_path / "scores/scores.json").read_text())
    assert (best["threshold"], best["roi"]) == (0.3, "800:1040,0:2000,0:2000")
    assert best["provenance"]["inputs"]["lookup"]["checksum"].startswith("listing:")
    assert "x, y at z = 840 nm" in (tmp_path / "scores/report.html").read_text()
    assert f"sum 0.000 bits at threshold 0.3; {tmp_path / 'scores/report.html'}" in ended.out


def test_scores_skeletons_without_labels(evaluate, sweep, fib25_slab, tmp_path):
    voxels = open_volume(fib25_slab / "volumes/labels/neuron_ids").array[100:130]
    ids = [i for i in np.unique(voxels[0]) if i and (voxels[0] == i).sum() > 500]
    lines, first = [], 0
    for name in ids[:6]:
        places = np.argwhere(voxels == name)[::2000][:40]
        lines += [(first + n, int(name), *(place * 8 + (804, 4, 4))) for n, place in enumerate(places)]
        first += len(places)
    nodes = np.array(lines)
    same = np.flatnonzero(nodes[1:, 1] == nodes[:-1, 1])
    edges = np.stack([nodes[same, 0], nodes[same + 1, 0]], axis=1)
    Skeletons(nodes[:, 0], nodes[:, 1], nodes[:, 2:].astype(float), np.ones(len(nodes)), edges).save(tmp_path / "s")
    ended = evaluate(labels=None, skeletons=tmp_path / "s", raw=fib25_slab / "volumes/raw")
    assert ended.code == 0, ended.err
    assert "bits over skeleton nodes at threshold 0.3;" in ended.out
    best = json.loads((tmp_path / "scores/scores.json").read_text())
    assert (best["threshold"], best["scored"], best["warning"]) == (0.3, "skeleton nodes", None)
    assert best["best"]["voi_sum"] == pytest.approx(0, abs=1e-9)
    assert best["best"]["nid"] == pytest.approx(0, abs=1e-9)
    assert "Segmentation of s" in (tmp_path / "scores/report.html").read_text()
    with open(tmp_path / "scores/scores.csv", newline="") as file:
        assert all(row["voi_sum"] and row["rand_split"] and row["erl"] for row in csv.DictReader(file))


def test_scores_a_segmentation_alone(evaluate, tmp_path):
    ended = evaluate("--roi", "800:880,:,:", fragments=None, lookup=None, segmentation="fragments.zarr/fragments")
    assert ended.code == 0, ended.err
    best = json.loads((tmp_path / "scores/scores.json").read_text())
    assert (best["threshold"], best["roi"]) == (None, "800:880,0:2000,0:2000")
    assert best["best"]["voi_merge"] == 0


@pytest.mark.parametrize(
    ("more", "changed", "message"),
    [
        ([], {"lookup": None}, "expected either --fragments with --lookup, or --segmentation alone"),
        ([], {"segmentation": "fragments.zarr/fragments"}, "expected either --fragments with --lookup"),
        ([], {"labels": "fragments.zarr/none"}, "has no array 'none'; it holds fragments"),
        ([], {"lookup": "none"}, "none: no lookup tables there"),
        (["--roi", "0:80,:,:"], {}, "fragments.zarr/fragments: covers"),
        (["--edges", "none"], {}, "--edges needs --skeletons"),
        (["--block-size", "81,80,80"], {}, "block size (81, 80, 80) nm: expected multiples of the voxel size"),
        (["--block-size", "0,80,80"], {}, "expected three lengths in nm, above 0"),
        ([], {"raw": "fragments.zarr/none"}, "has no array 'none'"),
        ([], {"labels": None}, "expected ground truth: --labels, --skeletons or both"),
        ([], {"skeletons": "none"}, "none: no such folder; expected skeletons"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(evaluate, tmp_path, more, changed, message):
    ended = evaluate(*more, **changed)
    lines = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert (ended.code, len(lines)) == (2, 1), ended.err
    assert message in lines[0]
    assert "Traceback" not in ended.err
    assert not (tmp_path / "scores").exists()


def test_help_has_an_example(run_script):
    ended = run_script(SCRIPT, "--help")
    assert ended.returncode == 0
    assert "Example:" in ended.stdout


def test_lists_the_worst_errors_with_places_that_hold_them(evaluate, sweep, fib25_slab, tmp_path):
    ended = evaluate("--roi", "800:880,:,:", fragments=None, lookup=None, segmentation="fragments.zarr/fragments")
    assert ended.code == 0, ended.err
    fragments = open_volume(sweep / "fragments.zarr/fragments")
    labels = open_volume(fib25_slab / "volumes/labels/neuron_ids")
    with open(tmp_path / "scores/errors.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert [int(row["voxels"]) for row in rows] == sorted((int(row["voxels"]) for row in rows), reverse=True)
    for row in rows:
        z, y, x = (int(row[axis]) // 8 for axis in "zyx")
        assert int(fragments.array[z - 100, y, x]) == int(row["segment"])
        assert int(labels.array[z, y, x]) == int(row["label"])
    first = ",".join(rows[0][axis] for axis in "zyx")
    report = (tmp_path / "scores/report.html").read_text()
    assert "Where it is most wrong" in report
    assert f"--position {first}" in report


@pytest.fixture
def full_disk(tmp_path):
    """A file system with room for some of the output, or a skip where none can be mounted."""
    folder = tmp_path / "full"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_one_line_and_leaves_nothing_that_looks_whole(evaluate, full_disk):
    ended = evaluate(out=full_disk / "scores")
    lines = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert (ended.code, len(lines)) == (1, 1), ended.err
    assert "No space left on device" in lines[0]
    assert not (full_disk / "scores/scores.json").exists()


@pytest.mark.slow
def test_a_killed_run_leaves_no_scores_and_the_next_one_gives_the_same(evaluate, sweep, fib25_slab, tmp_path):
    whole = evaluate(out=tmp_path / "whole")
    assert whole.code == 0, whole.err
    out = tmp_path / "killed"
    out.mkdir()
    (out / "scores.json").write_text("{}")
    script = ROOT / SCRIPT
    words = ["--fragments", "fragments.zarr/fragments", "--lookup", "lookup", "--out", out, "--workers", "2",
             "--labels", fib25_slab / "volumes/labels/neuron_ids", "--block-size", "80,400,400"]  # fmt: skip
    running = subprocess.Popen([sys.executable, script, *map(str, words)], cwd=sweep, stderr=subprocess.DEVNULL)
    while len(list(out.glob("contingency/.blocks/*.done"))) < 3 and running.poll() is None:
        time.sleep(0.002)
    running.kill()
    running.wait()
    assert not (out / "contingency.manifest.json").exists()
    assert not (out / "scores.json").exists(), "that of another run"
    again = evaluate("--workers", "2", "--block-size", "80,400,400", out=out)
    assert again.code == 0, again.err
    for name in ("scores.csv", "errors.csv"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_mask_of_another_data_set_is_refused(evaluate, fib25_slab, tmp_path):
    """Two data sets may share a folder: what one run writes there while another runs does not pass for the other's."""
    labels = open_volume(fib25_slab / "volumes/labels/neuron_ids")
    mask = create_volume(tmp_path / "m.zarr/mask", labels.shape, np.uint8, labels.voxel_size, labels.offset,
                         mask_rule={"unlabelled": [7]})  # fmt: skip
    mask.write(labels.roi, np.ones(labels.shape, np.uint8))
    refused = evaluate(mask=mask.path, dataset="fib25")
    assert refused.code == 2
    assert "was written by the rule {'unlabelled': [7]}, expected {'unlabelled': []}" in refused.err
    assert not (tmp_path / "scores/scores.json").exists()
    assert evaluate(mask=mask.path).code == 0
