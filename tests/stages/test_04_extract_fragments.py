import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from builders import ROOT

BLOCKS = ("--block-size", "160,160,160", "--context", "64,64,64")


def contents(folder):
    """All that a run wrote but its manifests, which tell when and where it ran."""
    files = (file for file in folder.rglob("*") if file.is_file() and not file.name.endswith(".manifest.json"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_help_shows_an_example(run_script):
    shown = run_script("04_segment/extract_fragments.py", "--help")
    assert shown.returncode == 0
    assert "Example:\n    python 04_segment/extract_fragments.py --affs" in shown.stdout


def test_fragments_of_a_volume(run_script, cells, tmp_path):
    done = run_script(
        "04_segment/extract_fragments.py", "--affs", cells.path / "affs", "--out", "made", *BLOCKS, "--workers", 1
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(" fragments; made/fragments.zarr\n")
    assert (tmp_path / "made/fragments.zarr.manifest.json").exists()
    assert len(list((tmp_path / "made/graph/nodes").iterdir())) == 18


@pytest.mark.slow
def test_a_killed_run_continues_and_gives_the_same_bytes(run_script, cells, tmp_path):
    script, affs = "04_segment/extract_fragments.py", cells.path / "affs"
    whole = run_script(script, "--affs", affs, "--out", tmp_path / "whole", *BLOCKS, "--workers", 1)
    assert whole.returncode == 0, whole.stderr
    options = ("--affs", affs, "--out", tmp_path / "out", *BLOCKS, "--workers", 2)
    stage = subprocess.Popen([sys.executable, ROOT / script, *map(str, options)], stderr=subprocess.PIPE)
    blocks = tmp_path / "out/fragments.zarr/.blocks"
    while not (blocks.exists() and any(blocks.glob("*.done"))):
        assert stage.poll() is None, stage.stderr.read()
        time.sleep(0.01)
    workers = psutil.Process(stage.pid).children(recursive=True)
    os.kill(stage.pid, signal.SIGKILL)
    stage.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    done = {file.name for file in blocks.glob("*.done")}
    assert 0 < len(done) < 18
    before = {
        name: (tmp_path / "out/graph/nodes" / name.replace("done", "parquet")).stat().st_mtime_ns for name in done
    }
    again = run_script(script, *options)
    assert again.returncode == 0, again.stderr
    after = {name: (tmp_path / "out/graph/nodes" / name.replace("done", "parquet")).stat().st_mtime_ns for name in done}
    assert before == after  # what was done was not done again
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--affs", "no.zarr/affs"), "no.zarr: no such volume; expected a zarr folder"),
        (("--affs", "{cells}/labels"), "labels: 3 axes (40, 48, 56), expected affinities with 4 (c, z, y, x)"),
        (
            ("--affs", "{cells}/affs", "--block-size", "100,160,160"),
            "block size (100, 160, 160) nm: expected multiples",
        ),
        (("--affs", "{cells}/affs", "--mask", "{cells}/affs"), "affs: shape (3, 40, 48, 56), voxel size"),
        (("--affs", "{cells}/affs", "--min-seed-distance", "0"), "0 is not in the range 1<=x<=10000"),
        (("--affs", "{cells}/affs", "--block-size", "all"), "'all': expected three lengths in nm, above 0"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(run_script, cells, tmp_path, arguments, line):
    filled = [str(argument).format(cells=cells.path) for argument in arguments]
    done = run_script("04_segment/extract_fragments.py", *filled, "--out", "out")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert line in done.stderr
    assert not (tmp_path / "out").exists()
