"""The workflow bare, in the image and on Slurm: the same bytes, whatever happens on the way."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builders import copy_project
from emsuite.common.container_image import digest
from workflow_runs import snakemake_in_fork

CONFIG = ("dataset=phantom", "network=small", "iterations=6", "threads=2")
RESULT = Path("results/phantom/small/6/phantom-test")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("workflow in containers")]


def small_project(folder: Path) -> Path:
    """The project as it is in git, with a phantom of a second or two and a checkpoint at every second iteration."""
    copy_project(folder)
    change(folder / "01_data/datasets/phantom.yaml", r"shape: \[.*\]", "shape: [64, 72, 72]")
    change(folder / "02_train/phantom/dataset.yaml", "checkpoint_every: .*", "checkpoint_every: 2")
    return folder


def change(path: Path, pattern: str, by: str) -> None:
    text, number = re.subn(pattern, by, path.read_text())
    assert number, f"{path}: has no {pattern}"
    path.write_text(text)


def snakemake(
    project: Path, *words: Any, config: tuple[str, ...] = CONFIG, **environment: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *map(str, words), "--config", *config]
    return subprocess.run(
        command, cwd=project, capture_output=True, text=True, check=False, timeout=600,
        env=os.environ | {"PYTHONPATH": str(project / "src")} | environment,
    )  # fmt: skip


def same_bytes(one: Path, other: Path) -> None:
    for name in ("prediction.zarr", "fragments.zarr", "segmentation.zarr", "lookup"):
        files = {path.relative_to(one) for path in (one / RESULT / name).rglob("*") if path.is_file()}
        assert files
        assert files == {path.relative_to(other) for path in (other / RESULT / name).rglob("*") if path.is_file()}
        for file in files:
            assert (one / file).read_bytes() == (other / file).read_bytes(), file


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run without image."""
    project = small_project(tmp_path_factory.mktemp("bare") / "project")
    done = snakemake(project)
    assert done.returncode == 0, done.stderr[-3000:]
    return project


def rules_to_run(project: Path, *config: str) -> set[str]:
    planned = snakemake_in_fork(project, *CONFIG, *config, options=("--dry-run",))
    assert planned.returncode == 0, planned.stderr[-3000:]
    return set(re.findall(r"^(\w+) +\d+$", planned.stdout + planned.stderr, re.MULTILINE)) - {"all", "total"}


SEGMENTS = {"find_segments", "evaluate", "extract_segmentation"}


@pytest.mark.parametrize(
    ("changed", "rules"),
    [
        ((), set()),
        (("device=cpu", "threads=1", "shared=[/nowhere]", "container=docker://lab/emsuite"), set()),
        (("segmentation={merge_function: mean}",), {"agglomerate"} | SEGMENTS),
        (("seed=3",), {"train", "predict", "extract_fragments", "agglomerate"} | SEGMENTS),
    ],
)
def test_a_changed_configuration_makes_anew_what_it_must(bare: Path, changed: tuple[str, ...], rules: set[str]) -> None:
    assert rules_to_run(bare, *changed) == rules


def test_the_report_has_scores_curves_and_sections(bare: Path) -> None:
    done = snakemake(bare, "--report", "report.zip")
    assert done.returncode == 0, done.stderr[-3000:]
    with zipfile.ZipFile(bare / "report.zip") as report:
        names = report.namelist()
        page = "".join(report.read(name).decode() for name in names if name.endswith("report.html"))
    assert {Path(name).suffix for name in names} >= {".html", ".svg", ".jpg"}
    for words in ("Scores", "Curves", "Sections", "splits fall", "Orange: split from its neuron"):
        assert words.lower() in page.lower(), words


def test_a_run_that_fails_ends_with_what_its_step_said(bare: Path) -> None:
    done = snakemake(bare, config=(*CONFIG[:2], "iterations=8", "device=cuda"), CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert told[-1] == "error: train: --device cuda: torch sees no GPU here; use --device cpu or auto"
    assert rules_to_run(bare) == set()


def test_in_an_image_from_a_bucket_that_fails(bare: Path, image: Path, s3: Any, tmp_path: Path) -> None:
    project = small_project(tmp_path / "project")
    volumes = bare / "data/funke/phantom/training"
    files = [path for path in volumes.rglob("*") if path.is_file() and path.relative_to(volumes).parts[1:]]
    objects = {f"funke/phantom/training/{path.relative_to(volumes).as_posix()}": path.read_bytes() for path in files}
    s3.public_bucket("workflow", objects | {"images/emsuite.sif": image.read_bytes()})
    change(project / "01_data/datasets/phantom.yaml", r"synthesis:.*\n(  .*\n)+", "bucket: workflow\n")
    words = ("--use-singularity", "--retries", "1")
    config = (*CONFIG, "container=s3://workflow/images/emsuite.sif", "shared=[]")
    s3.faults(slowdown=0.1, truncate=0.1, seed=1)
    done = snakemake(project, *words, config=config, AWS_ENDPOINT_URL=s3.url)
    assert done.returncode == 0, done.stderr[-3000:]
    assert s3.counts()["truncated"] >= 1
    assert s3.counts()["503"] >= 1
    same_bytes(bare, project)
    for manifest in project.glob(f"{RESULT}/*.manifest.json"):
        made_in = json.loads(manifest.read_text())["container"]
        assert made_in == {"image": "emsuite.sif", "digest": digest(image)}, manifest
    assert {path.name for path in project.iterdir() if path.name.startswith(".")} <= {
        ".ci", ".github", ".gitignore", ".pre-commit-config.yaml", ".snakemake", ".snakemake-workflow-catalog.yml"
    }, "caches lie elsewhere"  # fmt: skip
    again = snakemake(project, *words, "--dry-run", config=config, AWS_ENDPOINT_URL=s3.url)
    assert "Nothing to be done" in again.stdout + again.stderr


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ((), "error: no apptainer (or singularity) on PATH, which runs steps in an image; install it, or run bare"),
        (("container=a b",), "error: config/config.yaml: container: 'a b'; expected a file, s3://BUCKET/KEY, or a URI"),
    ],
)
def test_without_apptainer_or_with_a_senseless_image(tmp_path: Path, config: tuple[str, ...], says: str) -> None:
    (tmp_path / "bin").mkdir()
    for program in ("bash", "sh", "git", "which"):
        (tmp_path / "bin" / program).symlink_to(shutil.which(program) or "")
    project = small_project(tmp_path / "project")
    done = snakemake(project, "--use-singularity", config=(*CONFIG, *config), PATH=str(tmp_path / "bin"))
    assert done.returncode == 2
    assert next(line for line in done.stderr.splitlines() if line.startswith("error")).startswith(says)
    assert "Traceback" not in done.stderr


@pytest.fixture
def slurm_project(bare: Path, tmp_path: Path, slurm: None) -> Iterator[Path]:
    """A project with its data, set up for the Slurm of this machine as a user does it: in the profile."""
    project = small_project(tmp_path / "project")
    shutil.copytree(bare / "data", project / "data")
    profile = project / "profiles/slurm/profile.yaml"
    change(
        profile, "  # slurm_account: your_account\n  # slurm_partition: your_partition\n", "  slurm_partition: main\n"
    )
    change(profile, r"attempt \* \d+000\b", "attempt * 700")
    change(profile, "latency-wait: 60", "latency-wait: 5")
    yield project
    subprocess.run(["scancel", "--state=PENDING", f"--user={os.geteuid()}"], check=False, capture_output=True)


QUICKLY = ("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2",
           "--seconds-between-status-checks", "2")  # fmt: skip
ON_SLURM = ("--workflow-profile", "profiles/slurm", "--profile", "profiles/apptainer", *QUICKLY)


def requeue_while_training(project: Path) -> Callable[[], bool]:
    """Once training has a checkpoint, do to its job what a pre-emption does; tells whether that was done."""

    def running_job() -> str | None:
        listed = subprocess.run(["squeue", "-h", "-t", "R", "-o", "%i %k"], capture_output=True, text=True, check=False)
        return next((line.split()[0] for line in listed.stdout.splitlines() if "rule_train_" in line), None)

    def done() -> bool:
        if not list(project.glob("02_train/phantom/small/checkpoints/checkpoint_2.pt")) or not (job := running_job()):
            return False
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True)
        for _ in range(100):  # it waits for two minutes before it begins again, unless it is called
            time.sleep(0.5)
            subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=False, capture_output=True)
            shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=False).stdout
            if "JobState=RUNNING" in shown and "Restarts=1" in shown:
                break
        return True

    return done


@pytest.mark.timeout(1200)
def test_on_slurm_in_the_image_with_a_job_that_is_requeued(bare: Path, slurm_project: Path, image: Path) -> None:
    change(slurm_project / "profiles/slurm/profile.yaml", "gpu: 1", "gpu: 0")
    command = [sys.executable, "-m", "snakemake", *ON_SLURM, "--config", *CONFIG, f"container={image}"]
    environment = os.environ | {"PYTHONPATH": str(slurm_project / "src")}
    with open(slurm_project / "out.txt", "w") as out:
        run = subprocess.Popen(command, cwd=slurm_project, stdout=out, stderr=out, env=environment)
        requeued, give_up = requeue_while_training(slurm_project), time.monotonic() + 1000
        pending = True
        while run.poll() is None and time.monotonic() < give_up:
            pending = pending and not requeued()
            time.sleep(0.3)
        run.kill()
    said = (slurm_project / "out.txt").read_text()
    assert run.wait() == 0, said[-3000:]
    assert not pending, "training ended before its job could be requeued"
    same_bytes(bare, slurm_project)


def test_slurm_without_the_gpu_that_the_profile_asks_for(slurm_project: Path) -> None:
    done = snakemake(slurm_project, "--workflow-profile", "profiles/slurm", *QUICKLY, "--retries", "0")
    assert done.returncode == 1
    told = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("error: ")]
    assert len(told) == 1
    assert re.match(r"error: train: .*sbatch: error: .*(gres|GPU|node configuration)", told[0])
    assert not list((slurm_project / "02_train/phantom/small/checkpoints").glob("*.pt"))
