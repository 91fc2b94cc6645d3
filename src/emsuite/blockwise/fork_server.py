"""Local worker processes, forked from the stage with all that it has imported: they begin in milliseconds.

    stage --fork--> nursery --fork--> minder --fork--> worker
      \\--daisy--> launcher, one per worker: asks the nursery for one, waits, ends as it ended

daisy starts a launcher where it wants a worker, and takes its end for the worker's. It cannot fork workers itself: its
server has threads. The nursery is forked before them. Workers end when the stage does, or their launcher.
"""

import contextlib
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class LocalLauncher:
    """Started by daisy in a process of its own, once per worker; imports nothing heavy."""

    address: str

    def __call__(self, *, context: Any) -> None:
        """Run one worker from beginning to end; exits with 1 if it ended badly."""
        with socket.socket(socket.AF_UNIX) as nursery:
            nursery.connect(self.address)
            nursery.sendall(context.to_env().encode() + b"\0")
            answer = b"".join(iter(lambda: nursery.recv(100), b""))
        if answer != b"0":
            sys.exit(f"worker {'exited with code ' + answer.decode() if answer else 'vanished'}")


@contextlib.contextmanager
def nursery(
    be_worker: Callable[[tuple[Any, ...]], None], prepare: Callable[[], object] = lambda: None
) -> Iterator[LocalLauncher]:
    """Within the block, workers can be launched; each calls `be_worker` with the connections whose end is its own.

    `be_worker` finds DAISY_CONTEXT in the environment, and done what `prepare` does. On leaving, all workers end.
    """
    folder = Path(tempfile.mkdtemp(prefix="emsuite-"))
    watch, alive = os.pipe()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "nursery"))
        listener.listen()
        keeper = _fork()
        if keeper == 0:
            os.close(alive)
            _child(lambda: _keep(listener, watch, be_worker, prepare))
    os.close(watch)
    try:
        yield LocalLauncher(str(folder / "nursery"))
    finally:
        os.close(alive)
        os.waitpid(keeper, 0)
        shutil.rmtree(folder, ignore_errors=True)


def _keep(
    listener: socket.socket,
    watch: int,
    be_worker: Callable[[tuple[Any, ...]], None],
    prepare: Callable[[], object],
) -> int:
    """The nursery: fork a minder for each launcher that asks, until the stage ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the stage, with which all others end
    prepare()
    while _is_called(listener, watch):
        launcher, _ = listener.accept()
        if _fork() == 0:
            listener.close()
            _child(partial(_mind, launcher, watch, be_worker))
        launcher.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    return 0


def _is_called(listener: socket.socket, watch: int) -> bool:
    """Wait for a launcher; False if the stage ended instead."""
    either: list[Any] = [listener, watch]
    return watch not in select.select(either, [], [])[0]


def _mind(launcher: socket.socket, watch: int, be_worker: Callable[[tuple[Any, ...]], None]) -> int:
    """A minder: fork the worker, wait for it, and tell the launcher how it ended."""
    words = b""
    while not words.endswith(b"\0"):
        received = launcher.recv(4096)
        if not received:
            return 1
        words += received
    worker = _fork()
    if worker == 0:
        os.environ["DAISY_CONTEXT"] = words[:-1].decode()
        _child(lambda: be_worker((launcher, watch)))
    code = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    with contextlib.suppress(OSError):
        launcher.sendall(str(code).encode())
    return 0


def _fork() -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # of threads that hold locks: zarr's own waits for work, and makes itself anew in the child
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _child(do: Callable[[], int | None]) -> None:
    """Do it and end this process, without what the stage would have done at its end."""
    code = 1
    try:
        code = do() or 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
