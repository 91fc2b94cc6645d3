"""Workers that Slurm starts, on whichever machines: each is a job of its own and joins the stage over TCP."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class SlurmLauncher:
    """Started by daisy in a process of its own, once per worker: runs a job, and ends as it ended.

    `work` is the saved work; workers tell by files beside it that they began, and that there was nothing left to do.
    """

    options: list[str]
    work: Path

    def __call__(self, *, context: Any) -> None:
        """Run one job from beginning to end; exits with its code.

        Ends it if the stage ends first, or if it still waits for a machine when there is nothing left to do.
        """
        # a stage that is a job itself asks for new ones, not for a part of its own
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_") or k == "SLURM_CONF"}
        environment |= {"DAISY_CONTEXT": context.to_env(), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = ["srun", "--quiet", "--ntasks=1", "--job-name=emsuite-worker", *self.options]
        worker = [sys.executable, "-m", "emsuite.block_worker", str(self.work)]
        stage, since = os.getppid(), time.time()
        began, unneeded = began_mark(self.work.parent, context["worker_id"]), finished_mark(self.work.parent)
        with subprocess.Popen([*command, *worker], env=environment) as job:
            while job.poll() is None:
                if os.getppid() != stage or (_is_newer(unneeded, since) and not _is_newer(began, since)):
                    job.terminate()
                    job.wait()
                    return
                time.sleep(0.2)
        if job.returncode:
            sys.exit(f"worker exited with code {job.returncode}")


def began_mark(folder: Path, worker_id: str) -> Path:
    """Touched by a job as it begins."""
    return folder / f"worker_{worker_id}.began"


def finished_mark(folder: Path) -> Path:
    """Touched by each worker that is told that all blocks are in hands."""
    return folder / "finished"


def _is_newer(path: Path, since: float) -> bool:
    try:
        return path.stat().st_mtime > since
    except FileNotFoundError:
        return False
