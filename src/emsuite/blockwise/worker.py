"""A worker: takes blocks from the stage that started it, wherever that runs, until there are none left.

A block is done when its marker exists, which is made after the function returned: a block that failed, or whose
worker was killed, never looks done.
"""

import contextlib
import os
import pickle
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsuite.blockwise.slurm import began_mark, finished_mark
from emsuite.common.errors import EmsuiteError
from emsuite.common.files import write_json
from emsuite.common.process import keep_memory, set_up_process, silent_stdout

if TYPE_CHECKING:
    # loads NumPy, which comes after `set_up_process`
    from emsuite.blockwise.grid import Block, BlockGrid


@dataclass(frozen=True)
class Work:
    """Blocks to be done, what is done to one, and the folder for what is to be known about each of them."""

    grid: "BlockGrid"
    process: "Callable[[Block], None]"
    folder: Path

    def marker(self, index: int) -> Path:
        """There when the block is done."""
        return self.folder / f"{index}.done"

    def failure(self, index: int) -> Path:
        """Why the block failed last."""
        return self.folder / f"{index}.failed.json"

    def refusal(self) -> Path:
        """Why no block can be done; no block is begun once this is there."""
        return self.folder / "refused.json"

    def do(self, index: int) -> bool:
        """Do one block; returns whether it is done."""
        if self.refusal().exists():
            return False
        try:
            self.process(self.grid.block(index))
            self.marker(index).touch()
        except EmsuiteError as error:
            self._note(self.refusal(), {"error": str(error), "exit_code": error.exit_code})
            return False
        except Exception as error:
            lines = traceback.format_exc()
            self._note(self.failure(index), {"error": f"{type(error).__name__}: {error}", "traceback": lines})
            return False
        return True

    @staticmethod
    def _note(path: Path, content: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # a full disk has no room for the news that it is full
            write_json(path, content)


def serve(work: Work) -> None:
    """Do the blocks that the stage named in the environment hands out, until it has no more."""
    import daisy.logging
    from daisy.v2 import BlockStatus, Client

    daisy.logging.set_log_level("CRITICAL")
    client = Client()
    while True:
        with client.acquire_block() as block:
            if block is None:
                break
            if not work.do(work.grid.index_at(block.write_roi.begin)):
                block.status = BlockStatus.FAILED
    finished_mark(work.folder).touch()


def be_worker(work: Work, connections: tuple[Any, ...]) -> None:
    """Be a worker on this machine, in a process forked from the stage, as long as all `connections` are open."""
    set_up_process()
    end_with(*connections)
    _serve_alone(work)


def _serve_alone(work: Work) -> None:
    """Serve in a process that does nothing else."""
    keep_memory()  # the next block needs as much as the last one
    with silent_stdout():
        serve(work)


def end_with(*connections: Any) -> None:
    """End this process as soon as the other end of one of `connections` closes, even if that process was killed."""
    threading.Thread(target=_wait, args=(connections,), daemon=True).start()


def _wait(connections: tuple[Any, ...]) -> None:
    import select

    select.select(connections, [], [])
    os._exit(1)


def main() -> None:
    """Be a worker on another machine, for the work that was saved in the file named on the command line."""
    set_up_process()
    from daisy.v2 import Context

    context = Context.from_env()
    try:
        # never used, but closed when the stage ends
        end_with(socket.create_connection((context["hostname"], int(context["port"]))))
    except ConnectionRefusedError:
        return  # the stage ended before this worker began
    saved = Path(sys.argv[1])
    began_mark(saved.parent, context["worker_id"]).touch()
    _serve_alone(pickle.loads(saved.read_bytes()))


if __name__ == "__main__":
    main()
