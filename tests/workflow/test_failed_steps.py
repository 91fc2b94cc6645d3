"""Logs as Snakemake 9 and its plugin for Slurm write them."""

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
