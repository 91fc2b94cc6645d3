"""The three stage scripts that open a viewer, run as a user runs them."""

import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from builders import ROOT
from conftest import Ended
from emsuite.io.volume import create_volume

Call = Callable[..., Ended]


def put(path: Path, *channels: int, dtype: str = "uint8") -> Path:
    create_volume(path, (*channels, 4, 5, 6), dtype, (40, 4, 4), (0, 0, 0))
    return path


@contextmanager
def served(script: str, *arguments: object, cwd: Path) -> Iterator[list[str]]:
    """The lines that a script prints until it serves; then it is looked at, interrupted, and has to end well."""
    command = [sys.executable, str(ROOT / script), *(str(argument) for argument in arguments)]
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            lines = []
            for line in process.stdout:
                lines.append(line.strip())
                if line.startswith("Open "):
                    break
            assert lines, process.stderr and process.stderr.read()
            with urllib.request.urlopen(lines[-1].split()[1], timeout=120) as page:
                assert page.status == 200
            sockets = psutil.Process(process.pid).net_connections("all")
            assert {c.laddr.ip for c in sockets if c.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
            yield lines[:-1]
            process.send_signal(signal.SIGINT)
            _, complaints = process.communicate(timeout=120)
            assert (process.returncode, complaints) == (0, "")
        finally:
            process.kill()


def test_view_data(tmp_path: Path) -> None:
    put(tmp_path / "cube.zarr/volumes/raw")
    put(tmp_path / "cube.zarr/volumes/labels/neuron_ids", dtype="uint64")
    with served("01_data/view_data.py", "-d", "cube.zarr", cwd=tmp_path) as lines:
        assert lines[0].split()[:2] == ["raw", "image"]
        assert lines[0].endswith("uint8 (4, 5, 6), voxels of (40, 4, 4) nm from (0, 0, 0) nm")
        assert lines[1].split()[:2] == ["labels/neuron_ids", "segmentation"]


def test_view_batch_shows_the_newest_snapshot_of_the_folder_it_is_in(tmp_path: Path) -> None:
    put(tmp_path / "snapshots/batch_1.zarr/raw")
    put(tmp_path / "snapshots/batch_20.zarr/predictions/lsds", 10)
    with served("02_train/view_batch.py", cwd=tmp_path) as lines:
        assert [line.split()[:2] for line in lines] == [["predictions/lsds", "descriptors"]]


def test_view_results(tmp_path: Path) -> None:
    put(tmp_path / "results/prediction.zarr/affs", 3)
    raw = put(tmp_path / "cube.zarr/volumes/raw")
    with served("04_segment/view.py", "results", "--raw", raw, cwd=tmp_path) as lines:
        assert [line.split()[:2] for line in lines] == [["raw", "image"], ["affs", "affinities"]]


@pytest.mark.parametrize(
    ("script", "arguments", "complaint"),
    [
        ("01_data/view_data.py", [], "Missing option '-d' / '--data'"),
        ("01_data/view_data.py", ["-d", "none.zarr"], "none.zarr: no such volume"),
        ("01_data/view_data.py", ["-d", "cube.zarr", "-b", "203.0.113.7"], "--bind 203.0.113.7: cannot listen there"),
        ("02_train/view_batch.py", [], "is no folder of a network"),
        ("04_segment/view.py", [], "nothing to show"),
        ("04_segment/view.py", ["--segmentation", "cube.zarr"], "cube.zarr/: is a group, expected an array"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, call_script: Call, script: str, arguments: list[str], complaint: str
) -> None:
    put(tmp_path / "cube.zarr/volumes/raw")
    done = call_script(script, *arguments)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert complaint in done.err
    assert done.out == ""
