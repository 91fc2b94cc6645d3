import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import psutil
import pytest

from emsuite.blockwise.grid import Block, BlockGrid
from emsuite.blockwise.run import run_blocks
from emsuite.blockwise.worker import Work
from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.geometry import Coordinate, Roi

GRID = BlockGrid(Roi((0, 80), (100, 70)), Coordinate(32, 32), Coordinate(16, 16))


@pytest.fixture(autouse=True)
def nothing_left_behind():
    before = psutil.Process().children(recursive=True)
    yield
    assert set(psutil.Process().children(recursive=True)) <= set(before)


def note(folder, block):
    """Append to the block's file, so that its lines count the calls."""
    with open(folder / str(block.index), "a") as file:
        file.write(f"{block.write.begin} {os.getpid()}\n")


def fail_at_3(folder, error, block):
    note(folder, block)
    if block.index == 3:
        raise error


def die_at_3(folder, block):
    note(folder, block)
    if block.index == 3:
        os.kill(os.getpid(), signal.SIGKILL)


def calls(folder):
    return {int(file.name): len(file.read_text().splitlines()) for file in folder.iterdir() if file.is_file()}


@pytest.mark.parametrize("workers", [1, 2])
def test_every_block_is_done_once(tmp_path, workers):
    run_blocks("test", GRID, partial(note, tmp_path), workers, tmp_path / "done")
    assert calls(tmp_path) == dict.fromkeys(range(12), 1)
    for block in GRID:
        assert (tmp_path / str(block.index)).read_text().startswith(str(block.write.begin))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_later_run_does_what_is_left(tmp_path, workers):
    (tmp_path / "done").mkdir()
    for index in (0, 5, 11):
        (tmp_path / "done" / f"{index}.done").touch()
    run_blocks("test", GRID, partial(note, tmp_path), workers, tmp_path / "done")
    assert set(calls(tmp_path)) == set(range(12)) - {0, 5, 11}


@dataclass(frozen=True)
class NoteAndLook:
    """Notes blocks, and misses what it wrote for some of them."""

    folder: Path
    missing: tuple[int, ...]

    def __call__(self, block: Block) -> None:
        note(self.folder, block)

    def is_whole(self, block: Block) -> bool:
        return block.index not in self.missing


def test_finished_blocks_without_what_they_wrote_are_done_again(tmp_path):
    """A copy that was taken while a run wrote has such blocks."""
    run_blocks("test", GRID, partial(note, tmp_path), 1, tmp_path / "done")
    run_blocks("test", GRID, NoteAndLook(tmp_path, (3, 7)), 1, tmp_path / "done")
    assert calls(tmp_path) == dict.fromkeys(range(12), 1) | {3: 2, 7: 2}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_block_that_keeps_failing_is_named_and_not_done(tmp_path, workers):
    process = partial(fail_at_3, tmp_path, ValueError("no good"))
    with pytest.raises(RunFailed, match=r"test: block 3 \(.*\) failed 3 times: ValueError: no good"):
        run_blocks("test", GRID, process, workers, tmp_path / "done")
    assert calls(tmp_path) == dict.fromkeys(range(12), 1) | {3: 3}
    assert {path.name for path in (tmp_path / "done").glob("*.done")} == {f"{i}.done" for i in range(12) if i != 3}
    run_blocks("test", GRID, partial(note, tmp_path), workers, tmp_path / "done")
    assert calls(tmp_path) == dict.fromkeys(range(12), 1) | {3: 4}


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_input_ends_the_run_at_once(tmp_path, workers):
    process = partial(fail_at_3, tmp_path, BadInput("volume: holds nonsense"))
    with pytest.raises(BadInput, match=r"^volume: holds nonsense$"):
        run_blocks("test", GRID, process, workers, tmp_path / "done")
    assert calls(tmp_path)[3] == 1
    run_blocks("test", GRID, partial(note, tmp_path), workers, tmp_path / "done")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_takes_nothing_ends_the_run_at_once(tmp_path, number, workers):
    process = partial(fail_at_3, tmp_path, OSError(number, os.strerror(number), "out/7"))
    with pytest.raises(RunFailed, match=f"^out/7: {os.strerror(number)}$"):
        run_blocks("test", GRID, process, workers, tmp_path / "done")
    assert calls(tmp_path)[3] == 1
    run_blocks("test", GRID, partial(note, tmp_path), workers, tmp_path / "done")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_without_room_for_the_report_ends_the_run_at_once(tmp_path, monkeypatch, number, workers):
    full = OSError(number, os.strerror(number), "out/7")
    monkeypatch.setattr(Work, "_report", lambda *_: None)
    with pytest.raises(
        RunFailed, match=r"^test: .*done: nothing can be written, the disk is full, or your share of it$"
    ):
        run_blocks("test", GRID, partial(fail_at_3, tmp_path, full), workers, tmp_path / "done")
    assert calls(tmp_path)[3] == 1


def test_a_block_that_kills_its_workers_is_named(tmp_path):
    with pytest.raises(RunFailed, match=r"block 3 .* failed 3 times: worker was killed by SIGKILL"):
        run_blocks("test", GRID, partial(die_at_3, tmp_path), 2, tmp_path / "done")
    assert calls(tmp_path)[3] == 3
    assert len(list((tmp_path / "done").glob("*.done"))) == 11


EARLY = """
import os, signal, sys
from pathlib import Path
from emsuite.common.geometry import Coordinate, Roi
from emsuite.blockwise import run
from emsuite.blockwise.grid import BlockGrid
from emsuite.common.errors import EmsuiteError
from emsuite.common.process import set_up_process

def die(work, connections):
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    set_up_process()
    run.be_worker, run._MAX_DEATHS = die, 2
    try:
        grid = BlockGrid(Roi((0,), (6,)), Coordinate((1,)), Coordinate((0,)))
        run.run_blocks("test", grid, print, 2, Path(sys.argv[1]))
    except EmsuiteError as error:
        print(error)
"""


def test_workers_that_die_before_their_first_block_are_told_in_one_line(tmp_path):
    command = [sys.executable, "-c", EARLY, tmp_path / "done"]
    end = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert end.stdout == (
        "test: one worker after the other ends before it has done a block: worker was killed by SIGKILL (is there too "
        "little memory?); 6 blocks are not done\n"
    )


def test_blocks_of_another_run_do_not_count(tmp_path):
    run_blocks("test", GRID, partial(note, tmp_path), 1, tmp_path / "done", run="one")
    run_blocks("test", GRID, partial(note, tmp_path), 1, tmp_path / "done", run="one")
    assert calls(tmp_path) == dict.fromkeys(range(12), 1)
    run_blocks("test", GRID, partial(note, tmp_path), 1, tmp_path / "done", run="other")
    assert calls(tmp_path) == dict.fromkeys(range(12), 2)


@pytest.mark.parametrize("removed", ["folder", "marker"])
def test_blocks_that_another_process_removes_are_missed(tmp_path, removed):
    """At the end all blocks are looked at again, those of an earlier run too."""
    (tmp_path / "done").mkdir()
    (tmp_path / "done/0.done").touch()

    def work(block):
        if block.index == 11 and removed == "marker":
            (tmp_path / "done/0.done").unlink()
        elif block.index == 11:
            shutil.rmtree(tmp_path / "done")
            raise ValueError("no folder")

    with pytest.raises(RunFailed, match=r"^test: another process has removed finished blocks from .*done; run this"):
        run_blocks("test", GRID, work, 1, tmp_path / "done", retries=0)


def test_a_worker_that_dies_is_replaced(tmp_path):
    def die_once(block):
        note(tmp_path, block)
        if block.index == 3 and not (tmp_path / "died").exists():
            (tmp_path / "died").mkdir()
            os.kill(os.getpid(), signal.SIGKILL)

    run_blocks("test", GRID, die_once, 2, tmp_path / "done")
    assert calls(tmp_path) == dict.fromkeys(range(12), 1) | {3: 2}


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_are_set_up_and_this_process_is_left_alone(tmp_path, monkeypatch, capfd, workers):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)

    def look(block):
        print("printed")
        os.write(1, b"as C++ prints\n")
        (tmp_path / str(block.index)).write_text(os.environ.get("GOMP_SPINCOUNT", "none"))

    run_blocks("test", GRID, look, workers, tmp_path / "done")
    here = workers == 1
    assert {(tmp_path / str(index)).read_text() for index in range(12)} == {"none" if here else "50000"}
    assert "GOMP_SPINCOUNT" not in os.environ
    assert capfd.readouterr().out.count("print") == (24 if here else 0)


def test_nothing_listens_beyond_loopback(tmp_path):
    stage = os.getpid()

    def look(block):
        server = psutil.Process(stage)
        for connection in server.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip == "127.0.0.1"
                (tmp_path / "seen").touch()

    run_blocks("test", GRID, look, 2, tmp_path / "done")
    assert (tmp_path / "seen").exists()


SLOW_RUN = """
import sys, time
from pathlib import Path
from emsuite.common.geometry import Coordinate, Roi
from emsuite.blockwise.run import run_blocks
from emsuite.blockwise.worker import Work
from emsuite.blockwise.grid import BlockGrid

def wait(block):
    Path(sys.argv[1], "begun").touch()
    time.sleep(60)

if __name__ == "__main__":
    grid = BlockGrid(Roi((0,), (4,)), Coordinate((1,)), Coordinate((0,)))
    run_blocks("test", grid, wait, 2, Path(sys.argv[1], "done"))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_do_not_outlive_the_stage(tmp_path, how):
    (tmp_path / "run.py").write_text(SLOW_RUN.replace("Path(sys.argv[1], ", f"Path({str(tmp_path)!r}, "))
    stage = subprocess.Popen([sys.executable, tmp_path / "run.py"], stderr=subprocess.DEVNULL)
    wait_for(Path(tmp_path / "begun").exists)
    workers = []

    def all_are_there():
        workers[:] = psutil.Process(stage.pid).children(recursive=True)
        return len(workers) == 7  # the fork server, and for each worker its launcher, its monitor and itself

    wait_for(all_are_there)
    stage.send_signal(how)
    stage.wait(60)
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    assert not list((tmp_path / "done").glob("*.done"))


def wait_for(what, seconds=60.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


KILLED_RUN = """
import os, sys, time
from pathlib import Path
from emsuite.common.geometry import Coordinate, Roi
from emsuite.blockwise.run import run_blocks
from emsuite.blockwise.worker import Work
from emsuite.blockwise.grid import BlockGrid

folder = Path(sys.argv[1])

def work(block):
    with open(folder / f"{block.index}.calls", "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(0.05)
    (folder / f"{block.index}.result").write_text(str(block.index))

if __name__ == "__main__":
    run_blocks("test", BlockGrid(Roi((0,), (60,)), Coordinate((1,)), Coordinate((0,))), work, 2, folder / "done")
"""


@pytest.mark.slow
def test_twenty_kills_cost_the_blocks_at_work_and_nothing_else(tmp_path):
    (tmp_path / "run.py").write_text(KILLED_RUN)
    random, kills, runs = Random(0), 0, 0
    begun = set()
    while True:
        stage = subprocess.Popen([sys.executable, tmp_path / "run.py", tmp_path], stderr=subprocess.DEVNULL)
        runs += 1
        while stage.poll() is None:
            time.sleep(random.uniform(0, 0.6))
            with contextlib.suppress(psutil.NoSuchProcess):
                family = [psutil.Process(stage.pid), *psutil.Process(stage.pid).children(recursive=True)]
                begun |= set(family)
                if kills < 20:
                    random.choice(family).kill()
                    kills += 1
        if stage.returncode == 0:
            break
        assert runs < 60
        wait_for(partial(all_gone, begun), 5)
    assert kills >= 5
    calls = [len((tmp_path / f"{i}.calls").read_text().splitlines()) for i in range(60)]
    assert [(tmp_path / f"{i}.result").read_text() for i in range(60)] == [str(i) for i in range(60)]
    assert sum(calls) - 60 <= 2 * kills, "a kill costs at most the blocks that both workers were at"
    wait_for(partial(all_gone, begun), 5)


def all_gone(processes):
    return not any(is_at_work(process) for process in processes)


def is_at_work(process):
    """Whether it is there and not just waiting for its parent, or the system, to take note of its end."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(("free", "reason"), [(0, "done: the disk is full"), (2**30, "does another run write there")])
def test_a_disk_is_called_full_only_if_it_is(tmp_path, monkeypatch, free, reason):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**40, 2**40 - free, free))
    monkeypatch.setattr(Work, "do", lambda self, index: False)
    with pytest.raises(RunFailed, match=reason):
        run_blocks("test", GRID, print, 1, tmp_path / "done")
