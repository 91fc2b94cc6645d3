"""Locks on outputs that grow: one run at a time writes an output, and a run that has died holds no lock.

    .prediction.zarr.lock    beside prediction.zarr while a run writes it: which process, on which machine, since when

The file is written under another name and linked to its own, which is atomic on network file systems too. Its owner
lives if one of these says so, in this order:

    flock        the owner keeps the file locked; so do workers that it forked. A file that is not locked is that of a
                 dead owner, on one system or on a file system that shows locks to all machines.
    process      in one pid namespace of one system (boot id): the number of the process and its start
    heartbeat    from elsewhere: a thread of the owner renews the time of the file; `STALE` seconds without that are
                 its death. Times are those of the file system, so that clocks of machines may differ; a file whose
                 time lies in the future is watched for `STALE` seconds.

A dead owner's file is replaced by the one process that could create the file `LOCK.<run>.next`.
"""

import contextlib
import errno
import fcntl
import glob
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.files import shows_locks_everywhere, try_flock

BEAT, STALE = 10.0, 300.0
"""Seconds between heartbeats, and after how many seconds without one an owner elsewhere is dead."""
_ENDING = 60.0  # seconds that workers of a dead owner may need to end
_POLL = 0.05
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.EACCES}

State = Literal["alive", "dead", "ending", "silent"]
"""Of an owner. Workers of a dead one are `ending`; `silent` is one elsewhere, whose next heartbeat will tell."""

logger = logging.getLogger(__name__)
_held: dict[str, "Lock"] = {}


class OutputInUse(BadInput):
    """Another run writes the output."""


def this_process() -> dict[str, Any]:
    """Return what tells this process from all others: host, pid, its start (ticks), boot id and pid namespace."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _start_of(os.getpid()),
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "namespace": os.readlink("/proc/self/ns/pid"),
    }


def is_running(process: dict[str, Any]) -> bool | None:
    """Return whether a process, see `this_process`, runs; None if this process cannot see it."""
    here = this_process()
    if any(process.get(key) != here[key] for key in ("boot", "namespace")):
        return None
    try:
        os.kill(process["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is another user's
    started = _start_of(process["pid"])
    return started is None or started == process["started"]


def _start_of(pid: int) -> int | None:
    """Return the start of a process in ticks, -1 if it has ended and waits for its parent, None if it is hidden."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return -1 if fields[0] in "ZX" else int(fields[19])


class Lock:
    """The lock that this process holds on an output."""

    def __init__(self, path: Path, what: Path):
        """`path` is the lock file, `what` the output that messages name."""
        self.path, self.what, self.run = path, what, uuid.uuid4().hex[:16]
        self._own = path.with_name(f"{path.name}.{self.run}.new")
        self._pid, self._thread, self._depth, self._file = os.getpid(), threading.get_ident(), 0, -1
        self._released, self._new_folders = threading.Event(), list[Path]()

    def check(self) -> None:
        """Raise RunFailed if another run has taken the lock over, as after a stop of this process for minutes."""
        if self._file >= 0 and not self._is_own():
            raise RunFailed(f"{self.what}: another run has taken it over, or {self.path} was removed; run this again")

    def _is_own(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._file))
        except FileNotFoundError:
            return False

    def acquire(self) -> None:
        """Take the lock, from a dead owner as well; raise OutputInUse if its owner lives.

        In a folder that this process cannot write to it takes nothing: whatever is to be written there says so.
        """
        try:
            self._new_folders = [folder for folder in self.path.parents if not folder.exists()]
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._write()
            self._wait()
        except BaseException as error:
            self._close()
            if isinstance(error, OSError):
                if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                    return
                error.filename = str(self.what)
            raise
        finally:
            _unlink(self._own)
        self._remove_leftovers()
        threading.Thread(target=self._beat, daemon=True).start()

    def _wait(self) -> None:
        begin, first_beat, told = time.monotonic(), None, False
        while not self._name(self.path):
            state, owner, beat = judge(self.path, self._own)
            first_beat = beat if first_beat is None else first_beat
            late = state == "ending" and time.monotonic() - begin > _ENDING
            if state == "alive" or late or (state == "silent" and beat != first_beat):
                raise OutputInUse(_in_use(self.what, self.path, owner))
            if state == "silent" and time.monotonic() - begin > STALE:  # its time stands still, perhaps in the future
                state = "dead"
            if state == "dead":
                if beat and self._take_over(owner):
                    return
            elif state == "silent" and not told:
                logger.info(
                    "%s: waiting for a sign of %s, %.0f s at most; if that process has ended, remove %s",
                    self.what, _name_of(owner), STALE, self.path,
                )  # fmt: skip
                told = True
            time.sleep(1.0 if state == "silent" else _POLL)
            self._write()

    def release(self) -> None:
        """Remove the lock file, if it still is this run's; a forked child leaves it to its parent."""
        self._released.set()
        if self._file < 0:
            return
        try:
            if os.getpid() == self._pid and self._is_own():
                _unlink(self.path)
                with contextlib.suppress(OSError):  # a folder that holds the output stays
                    for folder in self._new_folders:
                        folder.rmdir()
        finally:
            self._close()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _write(self) -> None:
        """Write the own file under its first name, locked, unless it exists."""
        if self._own.exists():
            return
        self._close()
        self._file = os.open(self._own, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        os.fchmod(self._file, 0o644)  # other users should see who writes
        is_locked = any(try_flock(self._file, fcntl.LOCK_EX, wait) for wait in (0, _POLL, _POLL))
        about = {"run": self.run} | this_process() | {"since": time.strftime("%Y-%m-%d %H:%M:%S %Z")}
        about |= {"flock": is_locked, "everywhere": is_locked and shows_locks_everywhere(self.path.parent)}
        os.write(self._file, (json.dumps(about) + "\n").encode())
        os.fsync(self._file)

    def _name(self, path: Path) -> bool:
        """Give the own file the name `path` unless a file has it; return whether it has the name now."""
        try:
            os.link(self._own, path)
            return True
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):  # a network file system may have lost its first answer
                return os.path.samefile(self._own, path)
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        os.replace(self._own, path)
        return True

    def _take_over(self, owner: dict[str, Any]) -> bool:
        """Put the own file over that of the dead `owner`; return False if another process is about to."""
        following = self.path.with_name(f"{self.path.name}.{owner.get('run', 'unreadable')}.next")
        if not self._name(following):
            if judge(following, self._own)[0] == "dead":
                _unlink(following)
            return False
        # only the process that created `following` replaces the file of this owner
        with contextlib.suppress(FileNotFoundError):
            if _read(self.path).get("run") == owner.get("run"):
                os.replace(following, self.path)
                return True
        _unlink(following)
        return False

    def _remove_leftovers(self) -> None:
        for kind in ("new", "next"):
            for name in glob.glob(f"{glob.escape(str(self.path))}.*.{kind}"):
                if judge(Path(name), self.path)[0] == "dead":
                    _unlink(Path(name))

    def _beat(self) -> None:
        while not self._released.wait(BEAT):
            with contextlib.suppress(OSError):  # of a network that is down for a while, or of a released lock
                os.utime(self._file)


@contextmanager
def owned(path: Path, what: Path) -> Iterator[Lock]:
    """Hold the lock file `path` within the block, so that no other run writes the output `what`.

    The thread that holds it may enter again. Workers that it forks write under its lock.

    Raises:
        OutputInUse: Another run holds it. A dead run holds none: see the module for how its death is known.
        RunFailed: On leaving the block well, the lock is another run's.
    """
    key = str(Path(os.path.abspath(path)))
    lock = _held.get(key)
    if lock is None:
        lock = Lock(Path(path), Path(what))
        lock.acquire()
        _held[key] = lock
    elif lock._thread != threading.get_ident():
        raise OutputInUse(_in_use(Path(what), lock.path, this_process()))
    lock._depth += 1
    try:
        yield lock
        lock.check()
    finally:
        lock._depth -= 1
        if not lock._depth:
            del _held[key]
            lock.release()


def judge(path: Path, clock: Path) -> tuple[State, dict[str, Any], float]:
    """Return the state of the owner of a lock file, who it is, and the time of its last heartbeat.

    `clock` is a file of this process in the same folder: touching it tells the time of the file system. A file that
    does not exist is that of a dead owner, with 0 as its time.
    """
    try:
        file = os.open(path, os.O_RDONLY)
        owner, beat = _read(file), os.fstat(file).st_mtime
    except FileNotFoundError:
        return "dead", {}, 0.0
    try:
        is_free = try_flock(file, fcntl.LOCK_SH)
        runs = is_running(owner)
        if is_free is False:
            return ("ending" if runs is False else "alive"), owner, beat
        sees_locks = owner.get("flock") and owner.get("boot") == this_process()["boot"]
        sees_locks = sees_locks or (owner.get("everywhere") and shows_locks_everywhere(path.parent))
        if (is_free and sees_locks) or runs is False:
            return "dead", owner, beat
        if runs:
            return "alive", owner, beat
    finally:
        os.close(file)
    with contextlib.suppress(FileNotFoundError):
        os.utime(clock)
        return ("dead" if os.stat(clock).st_mtime - beat > STALE else "silent"), owner, beat
    return "silent", owner, beat


def _read(file: int | Path) -> dict[str, Any]:
    """Return who owns a lock file; empty if it says nothing. Raise FileNotFoundError without a file."""
    data = file.read_bytes() if isinstance(file, Path) else os.pread(file, 4096, 0)
    with contextlib.suppress(ValueError):
        content = json.loads(data)
        if isinstance(content, dict) and isinstance(content.get("pid"), int):
            return content
    return {}


def _unlink(path: Path) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _name_of(owner: dict[str, Any]) -> str:
    if not owner:
        return "an unknown process"
    return f"process {owner.get('pid')} on {owner.get('host')}, since {owner.get('since', 'just now')}"


def _in_use(what: Path, path: Path, owner: dict[str, Any]) -> str:
    return (
        f"{what}: another run is writing it ({_name_of(owner)}); wait for its end, or stop it, or choose another "
        f"output. If that process has ended, remove {path}"
    )
