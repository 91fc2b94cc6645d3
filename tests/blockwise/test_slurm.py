"""Jobs of a real Slurm; `../shared/tools/start-slurm` makes one on this machine."""

import filecmp
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from builders import files_in
from emsuite.io.volume import open_volume
from segmentation.instances.test_decode_instances import predictions, write

BLOCKS = ("--block-size", "160,160,160", "--context", "64,64,64")


def test_launchers_and_jobs_import_nothing_heavy():
    look = "import sys, emsuite.blockwise.slurm; print({'numpy', 'pydantic', 'yaml'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", look], text=True) == "set()\n"


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_jobs_yield_the_bytes_of_local_processes(cells, tmp_path, run_script):
    affs = ("--affs", cells.path / "affs")

    def segment(out: Path, *workers: str) -> None:
        made = ("--fragments", out / "fragments.zarr/fragments")
        for done in (
            run_script("04_segment/extract_fragments.py", *affs, "--out", out, *BLOCKS, *workers),
            run_script("04_segment/agglomerate.py", *affs, *made, "--out", out / "graph/edges", *workers),
        ):
            assert done.returncode == 0, done.stderr

    segment(tmp_path / "here", "--workers", "2")
    # more jobs than the machines take at a time: those that still wait at the end are called off
    segment(tmp_path / "jobs", "--workers", "slurm", "--slurm", "workers=7")
    for part in ("fragments.zarr/fragments/c", "graph/nodes", "graph/edges"):
        files = [
            path.relative_to(tmp_path / "here") for path in (tmp_path / "here" / part).rglob("*") if path.is_file()
        ]
        assert files
        assert filecmp.cmpfiles(tmp_path / "here", tmp_path / "jobs", [str(f) for f in files], shallow=False)[1:] == (
            [],
            [],
        )
    wait_for(lambda: not jobs(), 20)  # one that is called off as it begins is listed for a moment


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_jobs_decode_the_instances_of_local_processes(tmp_path, run_script):
    """Each round of floods gives its blocks to jobs of its own."""
    heads = [word for name, path in write(tmp_path, predictions()).items() for word in (f"--{name}", path)]
    options = ("--block-size", "112,88,100", "--smallest-seed", "5", "--smallest-instance", "20")
    for out, *given in (("here", "--workers", "1"), ("jobs", "--workers", "slurm", "--slurm", "workers=3")):
        done = run_script("04_segment/decode_instances.py", *heads, "--out", tmp_path / f"{out}.zarr", *options, *given)
        assert done.returncode == 0, done.stderr
    assert files_in(tmp_path / "jobs.zarr") == files_in(tmp_path / "here.zarr")
    assert open_volume(tmp_path / "jobs.zarr/segmentation").read().max() > 15
    wait_for(lambda: not jobs(), 20)


def jobs() -> str:
    """This suite's jobs that run or wait."""
    listed = subprocess.run(
        ["squeue", "-h", "-n", "emsuite-worker", "-t", "R,PD"], capture_output=True, text=True, check=True
    )
    return listed.stdout


def workers(folder: Path) -> list[psutil.Process]:
    """Those of the stage in a folder: other tests of Slurm may run at the same time."""
    return [p for p in psutil.process_iter(["cmdline"]) if "emsuite.blockwise.worker" in (p.info["cmdline"] or [])
            and "srun" not in p.info["cmdline"][0] and Path(p.info["cmdline"][-1]).is_relative_to(folder)]  # fmt: skip


RUN = """
import sys, time
from pathlib import Path
from emsuite.common.geometry import Coordinate, Roi
from emsuite.blockwise.run import run_blocks
from emsuite.blockwise.grid import BlockGrid
from emsuite.blockwise.slurm_settings import SlurmSettings
from slow_block import wait

if __name__ == "__main__":
    grid = BlockGrid(Roi((0,), (6,)), Coordinate((1,)), Coordinate((0,)))
    run_blocks("test", grid, wait, SlurmSettings(workers=2), Path(sys.argv[1], "done"))
"""
BLOCK = """
import os, time
from pathlib import Path

def wait(block):
    Path(FOLDER, f"{block.index}.{os.getpid()}").touch()
    time.sleep(SECONDS)
"""


def start(folder: Path, seconds: object) -> "subprocess.Popen[bytes]":
    (folder / "slow_block.py").write_text(BLOCK.replace("FOLDER", repr(str(folder))).replace("SECONDS", str(seconds)))
    (folder / "run.py").write_text(RUN)
    return subprocess.Popen([sys.executable, folder / "run.py", folder], stderr=subprocess.DEVNULL)


def wait_for(what, seconds=60.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_jobs_do_not_outlive_the_stage(tmp_path):
    stage = start(tmp_path, 100)
    wait_for(lambda: len(list(tmp_path.glob("[0-9].*"))) == 2)
    assert workers(tmp_path)
    stage.send_signal(signal.SIGKILL)
    stage.wait(60)
    wait_for(lambda: not workers(tmp_path) and not jobs(), 20)
    assert not list((tmp_path / "done").glob("*.done"))


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_a_job_at_work_is_not_called_off_when_another_finds_nothing_to_do(tmp_path):
    stage = start(tmp_path, "0.1 if block.index else 6")
    assert stage.wait(60) == 0
    assert len(list(tmp_path.glob("[0-9].*"))) == 6, "no block was begun twice"


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_a_job_that_dies_is_replaced(tmp_path):
    stage = start(tmp_path, 0.5)
    wait_for(lambda: list(tmp_path.glob("[0-9].*")))
    os.kill(int(next(tmp_path.glob("[0-9].*")).suffix[1:]), signal.SIGKILL)
    assert stage.wait(60) == 0
    assert len(list((tmp_path / "done").glob("*.done"))) == 6
    assert len(list(tmp_path.glob("[0-9].*"))) == 7, "one block was begun twice, no other"
    assert not workers(tmp_path)


def test_a_number_of_processes_takes_no_settings_of_slurm(call_script):
    end = call_script("04_segment/agglomerate.py", "--affs", "a", "--fragments", "b", "--out", "c",
                      "--workers", "2", "--slurm", "partition=cpu")  # fmt: skip
    assert end.code == 2
    assert "--slurm goes with --workers slurm" in end.err
