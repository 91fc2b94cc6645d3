"""Workers that Slurm starts, on whichever machines: each is a job of its own and joins the stage over TCP."""

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt

from emsuite.settings import Settings


class SlurmSettings(Settings):
    """What Slurm is asked for, per worker; what is not said is left to the cluster's own defaults."""

    workers: PositiveInt = Field(4, description="jobs at a time")
    partition: str | None = None
    account: str | None = None
    time: str | None = Field(None, description="limit per job, as Slurm writes it: 2:00:00")
    memory: str | None = Field(None, description="per job, as 8G")
    cpus: PositiveInt = 1
    extra: tuple[str, ...] = Field((), description="further options of srun, as --constraint=avx2")

    @property
    def options(self) -> list[str]:
        """For srun's command line."""
        named = {"partition": self.partition, "account": self.account, "time": self.time, "mem": self.memory}
        given = [f"--{name}={value}" for name, value in named.items() if value is not None]
        return [*given, f"--cpus-per-task={self.cpus}", *self.extra]


@dataclass(frozen=True)
class SlurmLauncher:
    """Started by daisy in a process of its own, once per worker: runs a job, and ends as it ended."""

    options: list[str]
    work: Path
    finished: Path

    def __call__(self, *, context: Any) -> None:
        """Run one job from beginning to end; exits with its code. Ends it when the work or the stage ends first."""
        # a stage that is a job itself asks for new ones, not for a part of its own
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_") or k == "SLURM_CONF"}
        environment |= {"DAISY_CONTEXT": context.to_env(), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = ["srun", "--quiet", "--ntasks=1", "--job-name=emsuite-worker", *self.options]
        stage, since = os.getppid(), time.time()
        with subprocess.Popen(
            [*command, sys.executable, "-m", "emsuite.block_worker", str(self.work)], env=environment
        ) as job:
            while job.poll() is None and os.getppid() == stage and not self._is_finished(since):
                time.sleep(0.2)
            if job.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    job.wait(5)  # it may be about to end by itself
            if job.poll() is None:  # still waits for a machine
                job.terminate()
                job.wait()
                return
        if job.returncode:
            sys.exit(f"worker exited with code {job.returncode}")

    def _is_finished(self, since: float) -> bool:
        """Whether another worker was told, after this began, that there are no more blocks."""
        try:
            return self.finished.stat().st_mtime > since
        except FileNotFoundError:
            return False
