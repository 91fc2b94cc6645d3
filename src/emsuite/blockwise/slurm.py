"""Workers as jobs of Slurm, on any machine of the cluster: each job connects to the gateway of the stage over TCP.

    stage --daisy--> launcher, one per worker --srun--> job: `python -m emsuite.blockwise.worker`

daisy starts one launcher process per worker and treats the launcher's exit as the job's exit. Jobs and launchers tell
each other their state by marker files in the folder of the saved work, which all machines share. A launcher and a job
import this module, so it must stay cheap to import: settings and their validation are in `slurm_settings`.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class SlurmLauncher:
    """Called by daisy in a new process, once per worker: submits a job, and exits as the job did.

    Attributes:
        options: Options of srun.
        work: The file with the pickled `worker.Work`; the markers of jobs are beside it.
        gateway: The environment by which jobs reach the stage, see `gateway`.
    """

    options: list[str]
    work: Path
    gateway: dict[str, str] = field(repr=False)

    def __call__(self, *, context: Any) -> None:
        """Run one job until it ends; exit with code 1 if it failed.

        Cancel the job if the stage ends first, or if the job still waits for a machine when all blocks are taken.
        """
        # if the stage is itself a job, srun must request new resources instead of using those of the stage
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_") or k == "SLURM_CONF"}
        environment |= {"DAISY_CONTEXT": context.to_env(), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        environment |= self.gateway
        command = ["srun", "--quiet", "--ntasks=1", "--job-name=emsuite-worker", *self.options]
        worker = [sys.executable, "-m", "emsuite.blockwise.worker", str(self.work)]
        stage, start = os.getppid(), time.time()
        began, finished = began_mark(self.work.parent, context["worker_id"]), finished_mark(self.work.parent)
        with subprocess.Popen([*command, *worker], env=environment) as job:
            while job.poll() is None:
                if os.getppid() != stage or (_is_newer(finished, start) and not _is_newer(began, start)):
                    job.terminate()
                    job.wait()
                    return
                time.sleep(0.2)
        if job.returncode:
            sys.exit(f"worker exited with code {job.returncode}")


def began_mark(folder: Path, worker_id: str) -> Path:
    """Return the marker file that a job touches when it begins."""
    return folder / f"worker_{worker_id}.began"


def finished_mark(folder: Path) -> Path:
    """Return the marker file that a worker touches when the stage has no more blocks to hand out."""
    return folder / "finished"


def _is_newer(path: Path, start: float) -> bool:
    try:
        return path.stat().st_mtime > start
    except FileNotFoundError:
        return False
