"""Running a function on every block of a volume, in this process or on many workers, so that a run can be resumed.

daisy hands the blocks out, to processes on this machine or to jobs of Slurm; a later run does those blocks alone that
have no marker (see `block_worker`).
"""

import contextlib
import json
import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from funlib.geometry import Roi

from emsuite.blockwise.fork_server import start_fork_server
from emsuite.blockwise.grid import Block, BlockGrid
from emsuite.blockwise.slurm import SlurmLauncher
from emsuite.blockwise.worker import Work, be_worker
from emsuite.common.errors import BadInput, EmsuiteError, RunFailed
from emsuite.common.files import atomic_path
from emsuite.common.progress import progress

if TYPE_CHECKING:
    from emsuite.blockwise.slurm_settings import SlurmSettings

BlockWorkers: TypeAlias = "int | SlurmSettings"
"""That many processes on this machine, or jobs of Slurm."""

_NO_TIMEOUT = 1e9  # seconds; daisy would kill a block after ten minutes
_LIVES = 10  # of each worker, before so many deaths are taken for a fault of the machine
_log = logging.getLogger(__name__)


def run_blocks(
    name: str,
    grid: BlockGrid,
    process: Callable[[Block], None],
    workers: BlockWorkers,
    done_folder: Path,
    retries: int = 2,
) -> None:
    """Call `process` on every block of `grid` that has no marker in `done_folder`; shows progress as `name`.

    One block, or one worker, runs in this process. Workers on this machine are forked from a process in which
    `process.warm_up` was called, if there is such a method: it loads what is heavy. Slurm's workers need `process` to
    be picklable, and a file system that all machines share. What `process` raises is tried again `retries` times,
    unless it is an EmsuiteError, which ends the run. Raises that error, or RunFailed naming a block that kept failing.
    """
    done_folder.mkdir(parents=True, exist_ok=True)
    work = Work(grid, process, done_folder)
    for old in (*done_folder.glob("*.failed.json"), work.refusal()):
        old.unlink(missing_ok=True)
    waiting = [index for index in range(len(grid)) if not work.marker(index).exists()]
    number = min(workers if isinstance(workers, int) else workers.workers, len(waiting))
    here, crash = number == 0 or workers == 1 or (isinstance(workers, int) and number == 1), ""
    with progress(what=name, total=len(grid), done=len(grid) - len(waiting), unit="block") as bar:
        if here:
            _run_here(work, waiting, retries, bar)
        else:
            with _launcher(work, workers) as launch:
                host = "127.0.0.1" if isinstance(workers, int) else None
                crash = _run_on_workers(name, work, waiting, launch, number, host, retries, bar)
    missing = [index for index in waiting if not work.marker(index).exists()]
    if missing:
        raise _failure(name, work, missing, retries, crash)


def _run_here(work: Work, waiting: Sequence[int], retries: int, bar: Any) -> None:
    for index in waiting:
        if any(work.do(index) for _ in range(retries + 1)):
            bar.update()


@contextlib.contextmanager
def _launcher(work: Work, workers: BlockWorkers) -> Iterator[Callable[..., None]]:
    """What daisy calls in a process of its own to have one worker."""
    if isinstance(workers, int):
        with start_fork_server(partial(be_worker, work), getattr(work.process, "warm_up", lambda: None)) as launch:
            yield launch
        return
    saved = (work.folder / "work.pickle").resolve()
    with atomic_path(saved) as temporary:
        temporary.write_bytes(pickle.dumps(work))
    yield SlurmLauncher(workers.options, saved)


def _run_on_workers(
    name: str,
    work: Work,
    waiting: Sequence[int],
    launch: Callable[..., None],
    number: int,
    host: str | None,
    retries: int,
    bar: Any,
) -> str:
    """Run the waiting blocks through daisy; returns what a worker that died last said."""
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
        process_function=launch,
        read_write_conflict=False,
        fit="shrink",
        max_workers=number,
        max_retries=retries,
        max_worker_restarts=number * _LIVES,
        timeout=_NO_TIMEOUT,
        tracking_path=False,
        skip_mask=skip.reshape(tuple(grid.shape)),
    )
    try:
        states = run_blockwise(
            task, progress=_Observer(bar), return_states=True, host=host, summary=False, block_tracking=False
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


def _failure(name: str, work: Work, missing: Sequence[int], retries: int, crash: str) -> EmsuiteError:
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
