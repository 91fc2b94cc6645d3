"""A fork server for worker processes on this machine: workers inherit all imports and start within milliseconds.

    stage --fork--> fork server --fork--> monitor --fork--> worker        a monitor and a worker per launcher
      \\--daisy--> launcher: asks the fork server for a worker, waits for its end, exits as it did

daisy starts one launcher process per worker and treats the launcher's exit as the worker's exit. The stage cannot fork
workers once daisy's server has started its threads, so it forks the fork server before. A worker ends when the stage
or its launcher ends.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from emsuite.blockwise.scratch import scratch_folder
from emsuite.common.errors import one_line


@dataclass(frozen=True)
class LocalLauncher:
    """Called by daisy in a new process, once per worker. It imports nothing heavy, so that workers start quickly."""

    address: str

    def __call__(self, *, context: Any) -> None:
        """Run one worker until it ends; exit with code 1 if the worker failed."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self.address)
            connection.sendall(context.to_env().encode() + b"\0")
            answer = b"".join(iter(lambda: connection.recv(100), b""))
        if answer != b"0":
            sys.exit(f"worker {'exited with code ' + answer.decode() if answer else 'vanished'}")


@contextlib.contextmanager
def start_fork_server(
    be_worker: Callable[[tuple[Any, ...]], None], prepare: Callable[[], object] = lambda: None
) -> Iterator[LocalLauncher]:
    """Run a fork server within the `with` block, and yield the launcher that starts its workers.

    All workers end when the block is left.

    Args:
        be_worker: Called in each worker, with DAISY_CONTEXT in the environment. It gets the connections to the
            launcher and to the stage: the worker must end as soon as one of them closes (see `worker.end_with`).
        prepare: Called once in the fork server, so that all workers inherit its effects.
    """
    with scratch_folder() as folder, _fork_server(folder, be_worker, prepare) as launcher:
        yield launcher


@contextlib.contextmanager
def _fork_server(
    folder: Path, be_worker: Callable[[tuple[Any, ...]], None], prepare: Callable[[], object]
) -> Iterator[LocalLauncher]:
    # nothing is ever written into the pipe: its read end becomes ready when the stage has ended
    stage_ended, stage_alive = os.pipe()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "fork_server"))
        listener.listen()
        server = _fork()
        if server == 0:
            os.close(stage_alive)
            _run_child(lambda: _serve_launchers(listener, stage_ended, be_worker, prepare))
    os.close(stage_ended)
    try:
        yield LocalLauncher(str(folder / "fork_server"))
    finally:
        os.close(stage_alive)
        os.waitpid(server, 0)


def _serve_launchers(
    listener: socket.socket,
    stage_ended: int,
    be_worker: Callable[[tuple[Any, ...]], None],
    prepare: Callable[[], object],
) -> int:
    """Be the fork server: fork a monitor for each launcher that connects, until the stage ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the stage; all other processes end with it
    prepare()
    while _wait_for_launcher(listener, stage_ended):
        launcher, _ = listener.accept()
        if _fork() == 0:
            listener.close()
            _run_child(partial(_monitor, launcher, stage_ended, be_worker))
        launcher.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    return 0


def _wait_for_launcher(listener: socket.socket, stage_ended: int) -> bool:
    """Wait until a launcher connects; return False if the stage ended instead."""
    either: list[Any] = [listener, stage_ended]
    return stage_ended not in select.select(either, [], [])[0]


def _monitor(launcher: socket.socket, stage_ended: int, be_worker: Callable[[tuple[Any, ...]], None]) -> int:
    """Be a monitor: fork the worker, wait for its end, and send its exit code to the launcher."""
    context = b""
    while not context.endswith(b"\0"):
        received = launcher.recv(4096)
        if not received:
            return 1
        context += received
    worker = _fork()
    if worker == 0:
        os.environ["DAISY_CONTEXT"] = context[:-1].decode()
        _run_child(lambda: be_worker((launcher, stage_ended)))
    code = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    with contextlib.suppress(OSError):
        launcher.sendall(str(code).encode())
    return 0


def _fork() -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # Python warns that other threads may hold locks. The only other thread is zarr's, which is idle; zarr starts a
        # new one in the child.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _run_child(do: Callable[[], int | None]) -> None:
    """Call `do` and end this forked process at once, without the exit handlers that it inherited from the stage."""
    code = 1
    try:
        code = do() or 0
    except BaseException as error:
        print(one_line(f"{type(error).__name__}: {error}"), file=sys.stderr)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
