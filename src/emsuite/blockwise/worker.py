"""A worker: a process that requests blocks from the stage that started it and processes them until none are left.

The marker file of a block is written after its function has returned, so a block that failed, or whose worker was
killed, never counts as done.
"""

import contextlib
import errno
import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsuite.blockwise.gateway import ADDRESS, SECRET, Gateway
from emsuite.blockwise.slurm import began_mark, finished_mark
from emsuite.common.errors import EmsuiteError, of_file_system
from emsuite.common.files import write_json
from emsuite.common.process import keep_memory, set_up_process, silent_stdout, take_out_of_environment

if TYPE_CHECKING:
    # imports NumPy, which must not be loaded before `set_up_process`
    from emsuite.blockwise.grid import Block, BlockGrid


_HOPELESS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Errors of a disk that a second try does not mend: it is full, a user's share of it is, or it is read only."""


@dataclass(frozen=True)
class Work:
    """The blocks of a run, the function that processes one of them, and the folder that records the state of each.

    Attributes:
        grid: All blocks.
        process: Called with a block.
        folder: The folder for markers of finished blocks and for reports of errors.
        run: The id of the run, which its markers hold. Markers of another run do not count.
    """

    grid: "BlockGrid"
    process: "Callable[[Block], None]"
    folder: Path
    run: str = ""

    def is_done(self, index: int) -> bool:
        """Return whether this run has finished the block, now or before a stop."""
        try:
            return self.done_marker(index).read_text() == self.run
        except FileNotFoundError:
            return False

    def is_whole(self, index: int) -> bool:
        """Return whether the block was finished before this run, and what it wrote exists; else remove its marker.

        A copy of a run that was writing may hold the marker without the files.
        """
        if not self.is_done(index):
            return False
        check = getattr(self.process, "is_whole", None)
        if check is None or check(self.grid.block(index)):
            return True
        self.done_marker(index).unlink()
        return False

    def done_marker(self, index: int) -> Path:
        """Return the file that exists if the block is done."""
        return self.folder / f"{index}.done"

    def failure_report(self, index: int) -> Path:
        """Return the file with the last error of the block."""
        return self.folder / f"{index}.failed.json"

    def refusal_report(self) -> Path:
        """Return the file with an error of the whole run, as bad input; once it exists, no more block is started."""
        return self.folder / "refused.json"

    def do(self, index: int) -> bool:
        """Process one block, and write its marker or a report; return whether the block is done."""
        if self.refusal_report().exists():
            return False
        try:
            self.process(self.grid.block(index))
            self.done_marker(index).write_text(self.run)
        except EmsuiteError as error:
            self._refuse(str(error), error.exit_code)
            return False
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _HOPELESS:
                self._refuse(*of_file_system(error))
                return False
            lines = traceback.format_exc()
            self._report(self.failure_report(index), {"error": f"{type(error).__name__}: {error}", "traceback": lines})
            return False
        return True

    def _refuse(self, error: str, exit_code: int) -> None:
        """End the run. On a full disk there may be room for the report's name alone, which ends it, too."""
        self._report(self.refusal_report(), {"error": error, "exit_code": exit_code})
        with contextlib.suppress(OSError):
            self.refusal_report().touch()

    @staticmethod
    def _report(path: Path, content: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the disk may be full, which may be the error to report
            write_json(path, content)


def serve(work: Work, context: Any = None) -> None:
    """Process blocks until the stage, whose address `context` or the environment (DAISY_CONTEXT) has, has no more."""
    import daisy.logging
    from daisy.v2 import BlockStatus, Client

    daisy.logging.set_log_level("CRITICAL")
    client = Client(context)
    while True:
        with client.acquire_block() as block:
            if block is None:
                break
            if not work.do(work.grid.index_at(block.write_roi.begin)):
                block.status = BlockStatus.FAILED
    finished_mark(work.folder).touch()


def be_worker(work: Work, connections: tuple[Any, ...]) -> None:
    """Be a worker on this machine, in a process forked from the stage.

    Args:
        work: The blocks to process.
        connections: Connections to the stage and the launcher; the worker ends when one of them closes.
    """
    set_up_process()
    end_with(*connections)
    _serve_alone(work)


def _serve_alone(work: Work, context: Any = None) -> None:
    """Process blocks in a process of its own, whose memory and standard output may be changed."""
    keep_memory()  # the next block needs as much memory as the last one
    with silent_stdout():
        serve(work, context)


def end_with(*connections: Any) -> None:
    """End this process as soon as the other end of one of `connections` closes, even by a kill."""
    threading.Thread(target=_exit_when_closed, args=(connections,), daemon=True).start()


def _exit_when_closed(connections: tuple[Any, ...]) -> None:
    import select

    select.select(connections, [], [])
    os._exit(1)


def main() -> None:
    """Be a worker in a job of Slurm. The argument on the command line is the file with the pickled `Work`."""
    set_up_process()
    from daisy.v2 import Context

    context = Context.from_env()
    gateway = Gateway.at(os.environ[ADDRESS], take_out_of_environment(SECRET))
    try:
        # nothing is sent over this connection, but it closes when the stage ends
        end_with(gateway.connect())
        context["port"] = str(gateway.relay(int(context["port"])))
    except ConnectionRefusedError:
        return  # the stage ended before this worker began
    except OSError as error:
        sys.exit(f"worker: cannot reach the stage at {gateway.host}:{gateway.port}: {error}")
    work_path = Path(sys.argv[1])
    began_mark(work_path.parent, context["worker_id"]).touch()
    _serve_alone(pickle.loads(work_path.read_bytes()), context)


if __name__ == "__main__":
    main()
