"""Logs as Snakemake 9 and its plugin for Slurm write them."""

import subprocess
import sys
from pathlib import Path

import pytest

from emsuite.workflow.failed_steps import failed_steps

LOCAL = """Building DAG of jobs...
[Fri Nov 20 12:45:46 2026]
Error in rule predict:
    message: None
    jobid: 3
    output: results/prediction.zarr.manifest.json
    log: results/predict.log (check log file(s) for error details)
    shell:
        python 03_predict/predict.py 2>&1 | tee results/predict.log
        (command exited with non-zero exit code)
Removing output files of failed job predict since they might be corrupted:
"""
SLURM = """[Fri Nov 20 12:45:46 2026]
Error in rule predict:
    message: {message}For further error details see the cluster/cloud log and the log files of the involved rule(s).
    jobid: 3
    output: results/prediction.zarr.manifest.json
    log: results/predict.log (check log file(s) for error details)
    shell:
        python 03_predict/predict.py 2>&1 | tee results/predict.log
        (command exited with non-zero exit code)
Trying to restart job 3.
[Fri Nov 20 12:45:47 2026]
"""
FAILED = "SLURM-job '3' failed, SLURM status is: 'FAILED'. "


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    (tmp_path / "results/predict.log").write_text("predict: 10%\nerror: raw: no such array\n")
    return tmp_path


def reasons(project: Path, text: str) -> list[str]:
    return failed_steps(text, project)


@pytest.mark.parametrize("text", [LOCAL, SLURM.format(message=FAILED)])
def test_what_the_step_said(project: Path, text: str) -> None:
    assert reasons(project, text) == ["predict: raw: no such array"]
    (project / "results/predict.log").write_text("Traceback:\n  a line\nValueError: a bug\n\n")
    assert reasons(project, text) == ["predict: ValueError: a bug"]


def test_a_log_below_a_folder_with_a_space(project: Path) -> None:
    (project / "results").rename(project / "my results")
    assert reasons(project, LOCAL.replace("results/", "my results/")) == ["predict: raw: no such array"]


@pytest.mark.parametrize("left", ["empty", "none"])
def test_a_step_that_said_nothing(project: Path, left: str) -> None:
    (project / "results/predict.log").write_text("")
    if left == "none":
        (project / "results/predict.log").unlink()
    assert reasons(project, LOCAL) == ["predict: see results/predict.log"]
    assert reasons(project, SLURM.format(message=FAILED)) == [f"predict: {FAILED.strip()}"]


BAR = "fragments:   0% 0/1 [00:00<?, ?block/s]"


def ended(how: str, log: str = "results/predict.log", text: str = LOCAL) -> str:
    """What Snakemake says of the command, and then of the step."""
    command = f"set -euo pipefail;  python 03_predict/predict.py --raw 'a b' 2>&1 | tee {log}"
    return f"RuleException:\nCalledProcessError in file \"predict.smk\", line 32:\nCommand '{command}' {how}.\n{text}"


@pytest.mark.parametrize("said", ["", f"{BAR}\n", f"going on from iteration 3\n{BAR}\n", "error: of a worker\n"])
@pytest.mark.parametrize("how", ["returned non-zero exit status 137", "died with <Signals.SIGKILL: 9>"])
def test_a_step_that_was_killed(project: Path, how: str, said: str) -> None:
    (project / "results/predict.log").write_text(said)
    killed = "predict: killed (signal 9; often too little memory)"
    assert reasons(project, ended(how)) == [killed]
    other = LOCAL.replace("rule predict", "rule train").replace("predict.log", "train.log")
    assert reasons(project, ended(how) + other) == [killed, "train: see results/train.log"]
    assert reasons(project, other + ended(how)) == ["train: see results/train.log", killed]


@pytest.mark.parametrize("log", ["'my results/tee it.log'", r"'\''my results/tee it.log'\'''"])
def test_a_killed_step_with_a_space_in_its_log(project: Path, log: str) -> None:
    """In an image, the command is quoted twice."""
    text = LOCAL.replace("results/predict.log", "my results/tee it.log")
    assert reasons(project, ended("returned non-zero exit status 137", log, text)) == [
        "predict: killed (signal 9; often too little memory)"
    ]


@pytest.mark.parametrize(
    ("status", "said", "expected"),
    [
        (139, f"{BAR}\n", "ended by signal 11 (SIGSEGV)"),
        (134, "terminate called\n", "ended by signal 6 (SIGABRT): terminate called"),
        (143, "error: interrupted\n", "interrupted"),
        (1, f"error: no space left\n{BAR}\n", "no space left"),
        (1, f"ValueError: a bug\n{BAR}\n", "ValueError: a bug"),
        (1, f"{BAR}\n", "see results/predict.log"),
        (255, f"{BAR}\n", "see results/predict.log"),
    ],
)
def test_progress_is_no_reason(project: Path, status: int, said: str, expected: str) -> None:
    (project / "results/predict.log").write_text(said)
    assert reasons(project, ended(f"returned non-zero exit status {status}")) == [f"predict: {expected}"]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "Job submission failed with exception: The given account x appears to be invalid. Available accounts:\n"
            "test, root",
            "Job submission failed with exception: The given account x appears to be invalid. Available accounts: "
            "test, root",
        ),
        (
            "SLURM sbatch failed. The error message was 'sbatch: error: Invalid generic resource (gres)\n"
            "sbatch: error: Batch job submission failed'.\n    sbatch call:\n        sbatch --parsable -p main\n",
            "SLURM sbatch failed. The error message was 'sbatch: error: Invalid generic resource (gres) "
            "sbatch: error: Batch job submission failed'.",
        ),
        ("SLURM-job '3' failed, SLURM status is: 'TIMEOUT'. ", "SLURM-job '3' failed, SLURM status is: 'TIMEOUT'."),
    ],
)
def test_what_slurm_said_once_for_all_attempts(project: Path, message: str, expected: str) -> None:
    assert reasons(project, 3 * SLURM.format(message=message)) == [f"predict: {expected}"]


def test_each_step_by_itself(project: Path) -> None:
    other = LOCAL.replace("rule predict", "rule train").replace("predict.log", "train.log")
    assert reasons(project, LOCAL + other) == ["predict: raw: no such array", "train: see results/train.log"]
    assert reasons(project, "Building DAG of jobs...\n") == []


SNAKEFILE = """
from pathlib import Path
from emsuite.workflow.failed_steps import collect_errors, failed_steps
ERRORS = collect_errors()
shell.prefix('set -euo pipefail; ')
rule killed:
    output: "my results/a"
    log: "my results/a.log"
    shell: "python -c 'import os; print(\\"a:   0% 0/1 [00:00<?, ?block/s]\\", flush=True); os.kill(os.getpid(), 9)'"
        " 2>&1 | tee {log:q}"
onerror:
    print(failed_steps(ERRORS.text, Path(".")), file=sys.stderr)
"""


@pytest.mark.slow
def test_snakemake_tells_of_a_kill(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "all", "--", "my results/a"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "['killed: killed (signal 9; often too little memory)']\n" in done.stderr
