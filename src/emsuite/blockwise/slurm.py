"""Workers that Slurm starts, on whichever machines: each is a job of its own and joins the stage over TCP.

What Slurm is asked for, when it starts workers.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, PositiveInt

from emsuite.common.errors import BadInput
from emsuite.common.settings import Settings, validate


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
        worker = [sys.executable, "-m", "emsuite.blockwise.worker", str(self.work)]
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

    @property
    def arguments(self) -> list[str]:
        """`--workers slurm --slurm KEY=VALUE ...` of the stage scripts; the inverse of `read_slurm_settings`."""
        given = self.model_dump(exclude_unset=True, mode="json")
        pairs = [f"{key}={json.dumps(value)}" for key, value in given.items()]  # json is yaml
        return ["--workers", "slurm", *(word for pair in pairs for word in ("--slurm", pair))]


def read_slurm_settings(pairs: Sequence[str]) -> SlurmSettings:
    """Settings from KEY=VALUE texts, lists as [--a, --b]; raises BadInput."""
    given: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise BadInput(f"--slurm {pair}: expected KEY=VALUE, as partition=cpu")
        try:
            # a time as 2:00:00 would be a number of seconds to yaml
            given[key] = yaml.load(value, yaml.BaseLoader)
        except yaml.YAMLError:
            raise BadInput(f"--slurm {pair}: the value is not valid yaml") from None
    return validate(SlurmSettings, given, "--slurm")
