"""Running a function on every block of a volume, in this process or on many workers, so that a run can be resumed.

A block is done when its marker exists, which is made after the function returned: a block that failed, or whose
worker was killed, never looks done, and a later run does those blocks alone that have no marker.
"""

import contextlib
import json
import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from funlib.geometry import Roi

from emsuite.errors import BadInput, EmsuiteError, RunFailed
from emsuite.files import write_json
from emsuite.grid import Block, Grid
from emsuite.progress import progress

_REFUSED = "refused.json"
_NO_TIMEOUT = 1e9  # seconds; daisy would kill a block after ten minutes
_log = logging.getLogger(__name__)


def run_blocks(
    name: str, grid: Grid, process: Callable[[Block], None], workers: int, done_folder: Path, retries: int = 2
) -> None:
    """Call `process` on every block of `grid` that has no marker in `done_folder`; shows progress as `name`.

    One block, or one worker, runs in this process; else blocks are handed out by daisy to as many worker processes,
    over loopback alone, and `process` must be picklable. What `process` raises is tried again `retries` times, unless
    it is an EmsuiteError, which ends the run. Raises that error, or RunFailed naming a block that kept failing.
    """
    done_folder.mkdir(parents=True, exist_ok=True)
    for old in (*done_folder.glob("*.failed.json"), done_folder / _REFUSED):
        old.unlink(missing_ok=True)
    work = _Work(grid, process, done_folder)
    waiting = [index for index in range(len(grid)) if not work.marker(index).exists()]
    workers = min(workers, len(waiting))
    with progress(what=name, total=len(grid), done=len(grid) - len(waiting), unit="block") as bar:
        if workers <= 1:
            _run_here(work, waiting, retries, bar)
        else:
            crash = _run_on_workers(name, work, waiting, workers, retries, bar)
    missing = [index for index in waiting if not work.marker(index).exists()]
    if missing:
        raise _failure(name, work, missing, retries, "" if workers <= 1 else crash)


@dataclass(frozen=True)
class _Work:
    """Does blocks: calls the function, makes the marker, and leaves behind why a block failed."""

    grid: Grid
    process: Callable[[Block], None]
    folder: Path

    def marker(self, index: int) -> Path:
        return self.folder / f"{index}.done"

    def failure(self, index: int) -> Path:
        return self.folder / f"{index}.failed.json"

    def refusal(self) -> Path:
        return self.folder / _REFUSED

    def do(self, index: int) -> bool:
        """Whether the block is done; no block is begun once one was refused."""
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

    def __call__(self, block: Any) -> None:
        """What a worker of daisy calls with daisy's block."""
        from daisy.v2 import BlockStatus

        _end_with_parent()
        if not self.do(self.grid.index_at(block.write_roi.begin)):
            block.status = BlockStatus.FAILED


def _run_here(work: _Work, waiting: Sequence[int], retries: int, bar: Any) -> None:
    for index in waiting:
        if any(work.do(index) for _ in range(retries + 1)):
            bar.update()


def _run_on_workers(name: str, work: _Work, waiting: Sequence[int], workers: int, retries: int, bar: Any) -> str:
    """Run the waiting blocks through daisy; returns what a worker that died last said."""
    # daisy's scheduler logs each failed attempt; the failure that counts is reported once, at the end
    os.environ.setdefault("RUST_LOG", "error")
    from daisy.logging import set_log_basedir, set_log_level
    from daisy.v2 import Task, run_blockwise

    set_log_basedir(None)
    set_log_level(logging.CRITICAL)
    grid, nowhere = work.grid, work.grid.context * 0
    skip = np.ones(len(grid), np.uint8)
    skip[waiting] = 0
    task = Task(
        name,
        grid.total.grow(grid.context, grid.context),
        Roi(nowhere - grid.context, grid.block_size + grid.context * 2),
        Roi(nowhere, grid.block_size),
        process_function=work,
        read_write_conflict=False,
        fit="shrink",
        max_workers=workers,
        max_retries=retries,
        max_worker_restarts=workers * (retries + 1),
        timeout=_NO_TIMEOUT,
        tracking_path=False,
        skip_mask=skip.reshape(tuple(grid.shape)),
    )
    try:
        states = run_blockwise(
            task, progress=_Observer(bar), return_states=True, host="127.0.0.1", summary=False, block_tracking=False
        )
    except RuntimeError as error:  # so many workers died that daisy gave up
        return str(error)
    return states[name].last_worker_error or ""


class _Observer:
    """Hands the number of finished blocks to a progress bar."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def on_start(self, states: Any) -> None:
        """Called once by daisy."""

    def on_progress(self, states: Any) -> None:
        """Called by daisy as blocks come back; skipped blocks count as completed."""
        for state in states.values():
            self.bar.update(max(0, int(state.completed_count) - self.bar.n))

    def on_finish(self, states: Any) -> None:
        """Called once by daisy."""
        self.on_progress(states)


def _failure(name: str, work: _Work, missing: Sequence[int], retries: int, crash: str) -> EmsuiteError:
    if work.refusal().exists():
        refused = json.loads(work.refusal().read_text())
        kind = BadInput if refused["exit_code"] == BadInput.exit_code else RunFailed
        return kind(refused["error"])
    index = next((index for index in missing if work.failure(index).exists()), missing[0])
    why = (crash.strip().splitlines() or ["there was no room to say why; is the disk full?"])[-1].removeprefix(
        "_WorkerExitError: "
    )
    if work.failure(index).exists():
        failed = json.loads(work.failure(index).read_text())
        why = failed["error"]
        _log.debug(failed["traceback"])
    more = f"; {len(missing) - 1} more blocks are not done" if len(missing) > 1 else ""
    return RunFailed(
        f"{name}: block {index} ({work.grid.block(index).write} nm) failed {retries + 1} times: {why}{more}"
    )


_watching = threading.Event()


def _end_with_parent() -> None:
    """Let this worker die within a second of the process that started it, even if that one was killed."""
    if not _watching.is_set():
        _watching.set()
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
