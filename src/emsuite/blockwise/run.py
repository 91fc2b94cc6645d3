"""Run a function on every block of a volume, in this process or on many workers, and continue stopped runs.

daisy hands out the blocks to workers: processes on this machine, or jobs of Slurm. A finished block has a marker file
(see `worker`); a later run processes only the blocks without a marker.
"""

import contextlib
import json
import logging
import pickle
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from emsuite.blockwise.fork_server import start_fork_server
from emsuite.blockwise.gateway import open_gateway
from emsuite.blockwise.grid import Block, BlockGrid
from emsuite.blockwise.slurm import SlurmLauncher
from emsuite.blockwise.worker import Work, be_worker
from emsuite.common.errors import BadInput, EmsuiteError, RunFailed
from emsuite.common.files import atomic_path, has_content
from emsuite.common.progress import progress

if TYPE_CHECKING:
    from emsuite.blockwise.slurm_settings import SlurmSettings

BlockWorkers: TypeAlias = "int | SlurmSettings"
"""The workers that process blocks: a number of processes on this machine, or jobs of Slurm."""

_NO_TIMEOUT = 1e9  # seconds; by default, daisy kills a block after ten minutes
_MAX_DEATHS = 10  # per worker, on average; after more, the run ends, because the machine must be at fault
_ROOM_FOR_A_REPORT = 2**16  # bytes
_KEEP_DYING = "one worker after the other ends before it has done a block"
_log = logging.getLogger(__name__)


def run_blocks(
    name: str,
    grid: BlockGrid,
    process: Callable[[Block], None],
    workers: BlockWorkers,
    done_folder: Path,
    retries: int = 2,
    run: str = "",
) -> None:
    """Call `process` on every block of `grid` that has no marker in `done_folder`.

    A single block, and the blocks of a single worker, are processed in this process.

    Args:
        name: The name of the stage, for the progress bar and for error messages.
        grid: The blocks.
        process: Called with a block. Workers on this machine are forked after `process.warm_up()`, if that method
            exists; it loads slow modules once for all workers. For Slurm, `process` must be picklable. A marked block
            for which `process.is_whole(block)`, if that method exists, is false is processed again.
        workers: Who processes the blocks. The result does not depend on it.
        done_folder: The folder for markers and error reports. For Slurm, all machines must share it.
        retries: How often to repeat a block after an exception; an EmsuiteError or a full disk ends the run at once.
        run: The id of the run (`Output.run`), which the markers hold. Blocks of another run do not count.

    Raises:
        EmsuiteError: As `process` raised it.
        RunFailed: If a block failed in every attempt; the message names the block and the last error.
    """
    done_folder.mkdir(parents=True, exist_ok=True)
    work = Work(grid, process, done_folder, run)
    for report in (*done_folder.glob("*.failed.json"), work.refusal_report()):
        report.unlink(missing_ok=True)
    waiting = [index for index in range(len(grid)) if not work.is_whole(index)]
    with progress(what=name, total=len(grid), done=len(grid) - len(waiting), unit="block") as bar:
        crash = _run(name, work, waiting, workers, retries, bar)
    # all blocks, not only those that waited: another process may have removed the work of this run
    unfinished = [index for index in range(len(grid)) if not work.is_done(index)]
    if unfinished:
        raise _failure(name, work, unfinished, waiting, retries, crash)


def _run(name: str, work: Work, waiting: Sequence[int], workers: BlockWorkers, retries: int, bar: Any) -> str:
    """Process the waiting blocks here or on workers; return how the last worker died, or an empty text."""
    number = min(workers if isinstance(workers, int) else workers.workers, len(waiting))
    if number == 0 or workers == 1 or (isinstance(workers, int) and number == 1):
        _run_here(work, waiting, retries, bar)
        return ""
    with _launcher(work, workers) as launch:
        return _run_on_workers(name, work, waiting, launch, number, retries, bar)


def _run_here(work: Work, waiting: Sequence[int], retries: int, bar: Any) -> None:
    for index in waiting:
        if any(work.do(index) for _ in range(retries + 1)):
            bar.update()


@contextlib.contextmanager
def _launcher(work: Work, workers: BlockWorkers) -> Iterator[Callable[..., None]]:
    """Yield the function that daisy calls, in a new process, to start one worker."""
    if isinstance(workers, int):
        with start_fork_server(partial(be_worker, work), getattr(work.process, "warm_up", lambda: None)) as launch:
            yield launch
        return
    work_path = (work.folder / "work.pickle").resolve()
    with atomic_path(work_path) as temporary:
        temporary.write_bytes(pickle.dumps(work))
    with open_gateway() as gateway:
        yield SlurmLauncher(workers.options, work_path, gateway.environment())


def _run_on_workers(
    name: str,
    work: Work,
    waiting: Sequence[int],
    launch: Callable[..., None],
    number: int,
    retries: int,
    bar: Any,
) -> str:
    """Let daisy hand out the waiting blocks; return how the last worker died, or an empty text."""
    from daisy.logging import set_log_basedir, set_log_level
    from daisy.v2 import Task, run_blockwise
    from funlib.geometry import Coordinate, Roi

    set_log_basedir(None)
    set_log_level(logging.CRITICAL)
    grid, origin = work.grid, Coordinate(work.grid.shape) * 0
    skip = np.ones(len(grid), np.uint8)
    skip[waiting] = 0
    task = Task(
        name,
        Roi(origin, grid.shape),  # daisy counts in blocks; their regions in nm need not be integers
        Roi(origin, origin + 1),
        Roi(origin, origin + 1),
        process_function=launch,
        read_write_conflict=False,
        fit="shrink",
        max_workers=number,
        max_retries=retries,
        max_worker_restarts=number * _MAX_DEATHS,
        timeout=_NO_TIMEOUT,
        tracking_path=False,
        skip_mask=skip.reshape(tuple(grid.shape)),
    )
    try:
        states = run_blockwise(
            task, progress=_Observer(bar), return_states=True, host="127.0.0.1", summary=False, block_tracking=False
        )
    except RuntimeError as error:
        _log.debug("%s", error)  # daisy's own words and advice
        return f"{_KEEP_DYING}: {_cause_of_death(str(error)) or 'they say no reason'}"
    return _cause_of_death(states[name].last_worker_error or "")


def _cause_of_death(said: str) -> str:
    """Return how the last worker died, of what daisy and its launcher said: `worker was killed by SIGKILL`."""
    causes = re.findall(r"worker (?:exited with code -?\d+|vanished|: .*)", said)
    if not causes:
        return ""
    if killed := re.search(r"code -(\d+)", causes[-1]):
        number = int(killed[1])
        name = signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"
        return f"worker was killed by {name}" + (" (is there too little memory?)" if number == signal.SIGKILL else "")
    return str(causes[-1])


class _Observer:
    """Passes the number of finished blocks from daisy to a progress bar."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def on_start(self, states: Any) -> None:
        """Called once by daisy, before the first block."""

    def on_progress(self, states: Any) -> None:
        """Called by daisy when blocks are finished; it counts skipped blocks as completed."""
        for state in states.values():
            self.bar.update(max(0, int(state.completed_count) - self.bar.n))

    def on_finish(self, states: Any) -> None:
        """Called once by daisy, after the last block."""
        self.on_progress(states)


def _why_silent(folder: Path) -> str:
    """Return why a block that is not done has no report of a failure in the folder of the blocks."""
    if not folder.is_dir():
        return f"{folder} is gone; did another run of this step remove it?"
    if shutil.disk_usage(folder).free < _ROOM_FOR_A_REPORT:
        return f"{folder}: the disk is full"
    return f"its worker left no report in {folder}; does another run write there?"


def _failure(
    name: str, work: Work, unfinished: Sequence[int], waiting: Sequence[int], retries: int, crash: str
) -> EmsuiteError:
    """Return the error of a run with unfinished blocks; `crash` says how the last worker died."""
    if (refusal := work.refusal_report()).exists():
        if not has_content(refusal):
            return RunFailed(f"{name}: {work.folder}: nothing can be written, the disk is full, or your share of it")
        report = json.loads(refusal.read_text())
        kind = BadInput if report["exit_code"] == BadInput.exit_code else RunFailed
        return kind(report["error"])
    if not work.folder.exists() or not set(unfinished) <= set(waiting):
        return RunFailed(f"{name}: another process has removed finished blocks from {work.folder}; run this again")
    if crash.startswith(_KEEP_DYING) and not any(work.failure_report(index).exists() for index in unfinished):
        return RunFailed(f"{name}: {crash}; {len(unfinished)} blocks are not done")
    index = next((index for index in unfinished if work.failure_report(index).exists()), unfinished[0])
    reason = crash or _why_silent(work.folder)
    if work.failure_report(index).exists():
        report = json.loads(work.failure_report(index).read_text())
        reason = report["error"]
        _log.debug(report["traceback"])
    more = f"; {len(unfinished) - 1} more blocks are not done" if len(unfinished) > 1 else ""
    return RunFailed(
        f"{name}: block {index} ({work.grid.block(index).write} nm) failed {retries + 1} times: {reason}{more}"
    )
