import fcntl
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emsuite.common.errors import RunFailed
from emsuite.common.state import lock as module
from emsuite.common.state.lock import OutputInUse, is_running, owned, this_process

HOLD = """
import os, sys, time
from pathlib import Path
from emsuite.common.state.lock import owned
with owned(Path(sys.argv[1]), Path("made.zarr")):
    print("ready", flush=True)
    time.sleep(float(sys.argv[2]))
"""
ELSEWHERE = {"run": "other", "host": "node7", "pid": 4242, "started": 99, "boot": "another", "namespace": "pid:[1]",
             "since": "2026-01-01 10:00:00 UTC", "flock": True, "everywhere": False}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".made.zarr.lock"


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path: Path) -> Iterator[None]:
    yield
    assert [file.name for file in tmp_path.iterdir()] == []


def hold(path: Path, seconds: float = 60) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", HOLD, path, str(seconds)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def left_by(path: Path, **about: Any) -> None:
    """A lock file that no process has open."""
    path.write_text(json.dumps(ELSEWHERE | about))


def take(path: Path) -> None:
    with owned(path, Path("made.zarr")):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_second_process_is_told_who_writes(path: Path) -> None:
    with hold(path) as holder:
        message = rf"made\.zarr: another run is writing it \(process {holder.pid} on \S+, since 20\d\d-.*\); wait for"
        with pytest.raises(OutputInUse, match=message):
            take(path)
        holder.kill()
    take(path)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_owner_holds_no_lock(path: Path, how: signal.Signals) -> None:
    with hold(path) as holder:
        holder.send_signal(how)
    assert path.exists()
    begin = time.monotonic()
    take(path)
    assert time.monotonic() - begin < 1


def test_a_dead_owner_whose_parent_has_not_taken_note_holds_no_lock(path: Path) -> None:
    with hold(path) as holder:
        holder.kill()
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
        take(path)


def test_a_suspended_owner_keeps_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALE", -1)
    with hold(path) as holder:
        holder.send_signal(signal.SIGSTOP)
        with pytest.raises(OutputInUse):
            take(path)
        holder.kill()
    take(path)


def test_workers_of_a_dead_owner_end_first(path: Path) -> None:
    script = HOLD.replace('print("ready"', 'os.fork() or (time.sleep(1), os._exit(0))\n    print("ready"')
    process = subprocess.Popen([sys.executable, "-c", script, path, "60"], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
        process.wait()
        begin = time.monotonic()
        take(path)
    assert 0.2 < time.monotonic() - begin < 10


def try_to_take(path: Path, barrier: Any, wins: Any) -> None:
    barrier.wait()
    try:
        with owned(path, Path("made.zarr")):
            with wins.get_lock():
                wins.value += 1
            time.sleep(1)
    except OutputInUse:
        pass


@pytest.mark.parametrize("lies_there", ["nothing", "dead", "dead and half taken over", "unreadable"])
@pytest.mark.parametrize("links", [True, False])
def test_of_many_one_gets_it(path: Path, lies_there: str, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    if lies_there == "unreadable":
        path.write_text("")
    elif lies_there != "nothing":
        left_by(path, boot=this_process()["boot"])
    if lies_there in ("dead and half taken over", "unreadable"):
        following = path.with_name(f"{path.name}.{'unreadable' if lies_there == 'unreadable' else 'other'}.next")
        left_by(following, boot=this_process()["boot"])
    if lies_there == "unreadable":
        os.utime(path, (1, 1))
    context = multiprocessing.get_context("fork")
    barrier, wins = context.Barrier(6), context.Value("i", 0)
    takers = [context.Process(target=try_to_take, args=(path, barrier, wins)) for _ in range(6)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join(30)
        assert taker.exitcode == 0
    assert wins.value == 1


def no_links(*_arguments: Any) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_an_owner_elsewhere_lives_while_its_file_is_renewed(path: Path) -> None:
    left_by(path)
    renew = threading.Timer(0.6, lambda: os.utime(path))
    renew.start()
    with pytest.raises(OutputInUse, match="process 4242 on node7, since 2026-01-01 10:00:00 UTC"):
        take(path)
    renew.join()
    path.unlink()


def test_an_owner_elsewhere_that_was_silent_for_long_is_dead(path: Path) -> None:
    left_by(path)
    os.utime(path, (time.time() - module.STALE - 5,) * 2)
    take(path)


def test_a_silent_owner_elsewhere_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALE", 1.5)
    left_by(path)
    begin = time.monotonic()
    take(path)
    assert 1 < time.monotonic() - begin < 10


def test_a_dead_owner_elsewhere_whose_time_lies_in_the_future_is_waited_for_no_longer(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "STALE", 0.5)
    left_by(path)
    os.utime(path, (time.time() + 2 * 86400,) * 2)
    with caplog.at_level("INFO"):
        take(path)
    assert f"if that process has ended, remove {path}" in caplog.text


@pytest.mark.parametrize("reaches", [True, False])
def test_locks_that_all_machines_see_prove_a_death_elsewhere(
    path: Path, reaches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALE", 1.0)
    monkeypatch.setattr(module, "shows_locks_everywhere", lambda _folder: reaches)
    left_by(path, everywhere=True)
    begin = time.monotonic()
    take(path)
    assert (time.monotonic() - begin < 0.5) == reaches


@pytest.mark.parametrize("same", [{"host": this_process()["host"]}, {"namespace": this_process()["namespace"]}])
def test_the_same_host_name_or_process_number_in_another_container_proves_nothing(
    path: Path, same: dict[str, Any]
) -> None:
    """Process 1 of another container on a machine of the same name: it lives as long as its file is renewed."""
    left_by(path, pid=1, **same)
    renew = threading.Timer(0.5, lambda: os.utime(path))
    renew.start()
    with pytest.raises(OutputInUse):
        take(path)
    renew.join()
    path.unlink()


def test_another_container_on_this_system_proves_its_life_by_its_lock(path: Path) -> None:
    """Its pid namespace differs, so that its number says nothing; the file's lock does, at once."""
    with hold(path) as holder:
        about = json.loads(path.read_text()) | {"namespace": "pid:[1]", "pid": 1}
        path.write_text(json.dumps(about))
        with pytest.raises(OutputInUse):
            take(path)
        holder.kill()
    begin = time.monotonic()
    take(path)
    assert time.monotonic() - begin < 1


def test_without_locks_of_the_file_system_the_process_proves_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with owned(path, Path("made.zarr")):
        assert json.loads(path.read_text())["flock"] is False
        command = [sys.executable, "-c", HOLD, str(path), "0"]
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "OutputInUse" in refused.stderr
    with hold(path) as holder:
        left_by(path, flock=False, **this_process() | {"pid": holder.pid, "started": -5})  # its number, used again
        take(path)
        holder.kill()


def no_locks(*_arguments: Any) -> None:
    raise OSError(38, "Function not implemented")


def test_a_lock_that_was_taken_over_ends_the_run_with_an_error(path: Path) -> None:
    def lose() -> None:
        with owned(path, Path("made.zarr")) as lock:
            lock.check()
            path.unlink()
            left_by(path)

    with pytest.raises(RunFailed, match=r"made\.zarr: another run has taken it over"):
        lose()
    assert json.loads(path.read_text())["run"] == "other", "the lock of the other run stays"
    path.unlink()


def test_the_same_thread_enters_again_and_another_does_not(path: Path) -> None:
    refused = []

    def other() -> None:
        try:
            take(path)
        except OutputInUse as error:
            refused.append(str(error))

    with owned(path, Path("made.zarr")) as lock:
        with owned(path, Path("made.zarr")) as again:
            assert again is lock
        assert path.exists()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert re.search(f"process {os.getpid()} on", refused[0])
    take(path)


def test_the_file_is_renewed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT", 0.05)
    with owned(path, Path("made.zarr")):
        os.utime(path, (1, 1))
        time.sleep(0.4)
        assert path.stat().st_mtime > 1


def test_a_child_leaves_the_lock_to_its_parent(path: Path) -> None:
    with owned(path, Path("made.zarr")) as lock:
        child = os.fork()
        if child == 0:
            lock.release()
            os._exit(0)
        os.waitpid(child, 0)
        assert path.exists()
        with pytest.raises(AssertionError), hold(path):
            pass


def test_a_folder_for_the_lock_alone_does_not_stay(path: Path) -> None:
    take(path.parent / "new" / ".lock")
    assert not (path.parent / "new").exists()


def test_files_that_others_left_beside_are_removed(path: Path) -> None:
    left_by(path.with_name(f"{path.name}.0123.new"), boot=this_process()["boot"])
    left_by(path.with_name(f"{path.name}.4567.next"), boot=this_process()["boot"])
    take(path)


def test_a_process_is_known_by_its_start() -> None:
    here = this_process()
    assert is_running(here) is True
    assert is_running(here | {"started": here["started"] - 1}) is False
    assert is_running(here | {"boot": "another"}) is None
    assert is_running(here | {"namespace": "pid:[1]"}) is None
    with subprocess.Popen(["sleep", "60"]) as process:
        process.kill()
        process.wait()
    assert is_running(here | {"pid": process.pid}) is False
