"""The real Snakefile from nothing to scores: on a tiny phantom, and on a corner of FIB-25."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest

from builders import command_of, copy_project, write_array
from emsuite.io.skeletons import Skeletons
from emsuite.io.volume import open_volume
from workflow_runs import command, environment, shrink_phantom, snakemake

CONFIG = ("dataset=phantom", "network=small", "iterations=6")
SEGMENTATION = "phantom/small/6/phantom-test/segmentation.zarr/segmentation"


class Run(NamedTuple):
    """A project whose workflow has run from nothing to scores, how, and what it said."""

    project: Path
    config: tuple[str, ...]
    said: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Of the phantom, in folders of a user's choice; scored on a volume with skeletons alone besides."""
    project = copy_project(tmp_path_factory.mktemp("straight") / "project")
    shrink_phantom(project)
    raw = np.random.default_rng(0).integers(0, 255, (32, 48, 48)).astype(np.uint8)
    write_array(project / "traced.zarr/volumes/raw", raw)
    along = np.arange(4, 380, 8.0)
    positions = np.concatenate([np.stack([0 * along + depth, 0 * along + depth, along], axis=1) for depth in (20, 150)])
    edges = np.array([[i, i + 1] for i in range(len(positions) - 1) if i != len(along) - 1])
    names = np.repeat([1, 2], len(along))
    Skeletons(np.arange(names.size), names, positions, np.ones(names.size), edges).save(project / "traced.skeletons")
    test = "test=['my data/funke/phantom/training/phantom-test.zarr', traced.zarr]"
    config = (*CONFIG, "data=my data", "results=my results", test)
    done = snakemake(project, *config)
    assert done.returncode == 0, done.stderr[-3000:]
    return Run(project, config, done)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.xdist_group("straight run")
def test_phantom_from_nothing_to_scores(straight: Run) -> None:
    project, config, done = straight
    results = project / "my results/phantom/small/6/phantom-test"
    scores = json.loads((results / "scores.json").read_text())
    assert f"VOI split {scores['best']['voi_split']:.3f}" in done.stdout + done.stderr
    assert "04_segment/view.py" in done.stdout + done.stderr
    assert "phantom-test, held out: VOI split" in done.stdout
    report = (results / "report.html").read_text()
    assert "data:image/" in report
    assert {"train_small_6", "predict"} <= set(re.findall(r"<td>(\w+)", report)), "what steps took"
    segmentation, labels = (
        open_volume(project / "my results" / SEGMENTATION),
        open_volume(project / "my data/funke/phantom/training/phantom-test.zarr/volumes/labels/neuron_ids"),
    )
    assert segmentation.roi == labels.roi
    assert segmentation.read().any()
    again = snakemake(project, *config)
    assert "Nothing to be done" in again.stdout + again.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.xdist_group("straight run")
def test_a_volume_with_skeletons_alone_is_scored_by_them(straight: Run) -> None:
    results = straight.project / "my results/phantom/small/6/traced"
    scores = json.loads((results / "scores.json").read_text())
    assert scores["scored"] == "skeleton nodes"
    assert scores["best"]["voi_sum"] is not None
    assert scores["best"]["merges_needed"] is not None
    assert (results / "segmentation.zarr.manifest.json").exists()
    assert "over skeleton nodes (best at threshold" in straight.said.stdout + straight.said.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.xdist_group("straight run")
def test_a_killed_run_goes_on_to_the_same_bytes(project: Path, straight: Run) -> None:
    shrink_phantom(project)
    process = subprocess.Popen(command(*CONFIG), cwd=project, env=environment(project), start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    log = project / "02_train/phantom/small/log/losses.csv"
    for _ in range(2000):
        if log.exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert log.exists()
    assert not (project / "results/phantom/small/6/phantom-test/report.html").exists()
    subprocess.run(
        [*command(*CONFIG), "--unlock"], cwd=project, env=environment(project), check=True, capture_output=True
    )
    done = snakemake(project, *CONFIG)
    assert done.returncode == 0, done.stderr[-3000:]
    np.testing.assert_array_equal(
        open_volume(project / "results" / SEGMENTATION).read(),
        open_volume(straight.project / "my results" / SEGMENTATION).read(),
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_full_folder_for_temporary_files_stops_nothing(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "full"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        (folder / "fill").write_bytes(bytes(4096))
        shrink_phantom(project)
        monkeypatch.setenv("TMPDIR", str(folder))
        done = snakemake(project, "dataset=phantom", "network=small", options=("--until", "synthesize"))
    finally:
        subprocess.run(["umount", folder], check=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list(project.glob("data/funke/phantom/training/*.zarr.manifest.json"))) == 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_instances_of_a_phantom_from_nothing_to_scores(project: Path) -> None:
    """A network of foreground, contours and distances is decoded to instances, in blocks."""
    shrink_phantom(project)
    (project / "02_train/phantom/cells").mkdir()
    heads = "mask: {target: foreground}, rim: {target: contour}, distance: {target: distance}"
    (project / "02_train/phantom/cells/network.yaml").write_text(f"heads: {{{heads}}}\n")
    # a network that has learnt nothing knows no threshold of its own
    instances = "{seed_foreground: 0.3, seed_contour: 2, seed_distance: -1, mask_foreground: 0.2, mask_distance: -1}"
    settings = f"segmentation={{instances: {instances}, block_size: [512, 576, 320]}}"
    config = ("dataset=phantom", "network=cells", "iterations=2", settings)
    done = snakemake(project, *config)
    assert done.returncode == 0, done.stderr[-3000:]
    results = project / "results/phantom/cells/2/phantom-test"
    scores = json.loads((results / "scores.json").read_text())
    assert 0 <= scores["best"]["average_precision"] <= scores["best"]["ap_50"] <= 1
    assert "mAP of instances" in (results / "report.html").read_text()
    manifest = json.loads((results / "segmentation.zarr.manifest.json").read_text())
    assert manifest["blocks"] > 1
    assert manifest["settings"]["seed_foreground"] == 0.3
    assert manifest["instances"] == len(np.unique(open_volume(results / "segmentation.zarr/segmentation").read())) - 1
    assert not (results / "fragments.zarr").exists()
    again = snakemake(project, *config)
    assert "Nothing to be done" in again.stdout + again.stderr
    other = settings.replace("seed_foreground: 0.3", "seed_foreground: 0.31")
    told = snakemake(project, *config[:3], other, options=("-n",)).stdout
    assert "decode_instances" in told
    assert "rule predict" not in told


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fib25_from_a_shared_folder(project: Path, fib25_slab: Path) -> None:
    shared = fib25_slab.parents[2]
    config = ("dataset=fib25", "network=small", "iterations=2", f"shared={shared}")
    corner = "test=data/funke/fib25/training/trvol-250-2.zarr@1040:1168,0:512,0:512"
    done = snakemake(project, *config, corner)
    assert done.returncode == 0, done.stderr[-3000:]
    scores = json.loads(next((project / "results").rglob("scores.json")).read_text())
    assert 0 < scores["best"]["voi_sum"] < 20


def test_an_edited_volume_runs_again_and_a_failed_step_is_named_when_quiet(project: Path, tmp_path: Path) -> None:
    volume = tmp_path / "own volumes/a@b, c=d.zarr"
    for name in ("raw", "labels/neuron_ids"):
        write_array(volume / "volumes" / name, np.arange(8**3, dtype=np.uint8).reshape(8, 8, 8))
    config = ("dataset=fib25", "network=small", f"train=['{volume}']", f"test=['{volume}']")
    masks = f"{volume}.masks.json"
    options = ("--quiet", "rules", "--", masks)
    done = snakemake(project, *config, options=options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "double" not in done.stderr
    assert [log.name for log in project.glob("results/fib25/small/*/log/masks/*.log")] == ["a@b, c=d.log"]
    assert "Nothing to be done" in snakemake(project, *config, options=("-n", "--", masks)).stdout
    if shutil.which("apptainer"):
        in_image = snakemake(
            project, *config, "container=docker://debian", options=("-n", "--use-singularity", "--", masks)
        )
        assert "Nothing to be done" in in_image.stdout, in_image.stderr
    open_volume(volume / "volumes/labels/neuron_ids", "r+").array[3, 4, 5] = 9
    labels = volume / "volumes/labels/neuron_ids"
    told = snakemake(project, *config, options=("-n", "--", masks))
    assert f"{labels}: changed since the last run; the steps that read it run again\n" in told.stderr
    assert "create_masks" in told.stdout
    for chunk in (path for path in (labels / "c").rglob("*") if path.is_file()):
        os.truncate(chunk, 3)
    failed = snakemake(project, *config, options=options)
    assert failed.returncode != 0
    assert f"error: create_masks: {labels}/c/0/0/0: " in failed.stderr
    shutil.rmtree(labels)
    failed = snakemake(project, *config, options=options)
    assert f"error: {volume}: has no volumes/labels/neuron_ids, expected labels to train on" in failed.stderr


@pytest.mark.slow
def test_paths_with_spaces_stay_whole(project: Path, logger: None) -> None:
    (project / "my shared/funke/fib25/training/trvol-250-2.zarr").mkdir(parents=True)
    config = ("dataset=fib25", "network=small", "data=my data", "results=my results", "shared=[my shared]",
              'train=["my own/it\'s one.zarr@0:80,:,:", "my own/other.zarr"]', "seed=3")  # fmt: skip
    done = snakemake(project, *config, options=("--dry-run", "--printshellcmds"))
    assert done.returncode == 0, done.stderr[-3000:]
    shown = re.findall(r"^(?:Shell command: |        )(.*python 0.*)$", done.stdout + done.stderr, re.MULTILINE)
    commands = [shlex.split(line.partition("python ")[2].rpartition(" 2>&1 | tee ")[0]) for line in shown]
    assert len(commands) == 11
    for script, *words in commands:
        words = [word for word in words if word != "${timings[@]}"]
        command_of(project / script).make_context(script, words)
    told = {tuple(pair) for words in commands for pair in pairwise(words)}
    assert told >= {("--data", "my own/it's one.zarr@0:80,:,:"), ("--from", "my shared"), ("--seed", "3")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "line"),
    [
        (("network=smal",), "error: no network 'smal'"),
        (
            ("network=small", "segmentation={merge_function: smal}"),
            "error: config/config.yaml: segmentation: merge_function: expected one of mean, ",
        ),
    ],
)
def test_a_wrong_configuration_ends_in_one_line(project: Path, config: tuple[str, ...], line: str) -> None:
    done = snakemake(project, "dataset=fib25", *config)
    assert done.returncode == 2
    assert next(told for told in done.stderr.splitlines() if told.startswith("error")).startswith(line)
    assert not (project / "data").exists()
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_training_saves_when_its_workflow_is_stopped(project: Path, how: signal.Signals) -> None:
    """SIGKILL of Snakemake alone, or Ctrl-C, which reaches the whole group of processes, `tee` among them."""
    shrink_phantom(project)
    process = subprocess.Popen(command("dataset=phantom", "network=small", "iterations=100000"), cwd=project,
                               env=environment(project), start_new_session=True, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    network = project / "02_train/phantom/small"
    wait_for((network / "log/losses.csv").exists, 200)
    steps = [step for step in psutil.Process(process.pid).children(recursive=True) if "python" in step.name()]
    if how == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, how)
    process.wait(60)
    assert not psutil.wait_procs(steps, timeout=60)[1]
    assert list((network / "checkpoints").glob("checkpoint_*.pt"))
    assert not (network / "checkpoints/.lock").exists()


def wait_for(what: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)
