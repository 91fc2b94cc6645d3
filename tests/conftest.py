"""What tests share: the real data, an S3 endpoint with faults, and scripts run as a user runs them.

A real part that is missing skips its tests with the reason; with EMSUITE_REQUIRE_PARTS=1 (as in CI) it fails them.
"""

import contextlib
import fcntl
import importlib.util
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from builders import ROOT, SETTINGS, copy_project

# A run in the background begins with SIGINT ignored, which the scripts that tests interrupt would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = ROOT.parent / "shared"
DATA = Path(os.environ.get("EMSUITE_TEST_DATA", SHARED / "data"))
START_SLURM = Path(os.environ.get("EMSUITE_TEST_START_SLURM", SHARED / "tools" / "start-slurm"))
S3_SERVER = Path(os.environ.get("EMSUITE_TEST_S3_SERVER", SHARED / "tools" / "s3-server"))


def need(there: bool, what: str) -> None:
    """Skip the test for want of `what`, or fail it where every part is required."""
    if there:
        return
    if os.environ.get("EMSUITE_REQUIRE_PARTS") == "1":
        pytest.fail(f"required here, but missing: {what}")
    pytest.skip(f"missing: {what}", allow_module_level=True)


@pytest.fixture(scope="session")
def fib25_slab() -> Path:
    """160 sections of FIB-25 with dense labels; read-only, copy it before writing."""
    path = DATA / "fib25/training/trvol-250-2.zarr"
    need(path.is_dir(), f"the FIB-25 slab {path}")
    return path


class S3:
    """An S3 endpoint on loopback; `faults` sets what goes wrong from now on and zeroes the counts."""

    def __init__(self, url: str):
        self.url = url

    def client(self) -> Any:
        """A signed boto3 client, to put objects in place."""
        import boto3

        return boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id="test",
                            aws_secret_access_key="test")  # fmt: skip

    def public_bucket(self, name: str, objects: dict[str, bytes]) -> None:
        """A fresh bucket that anyone may list and read, as the public one."""
        client = self.client()
        client.create_bucket(Bucket=name)
        allow = {"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject", "s3:ListBucket"],
                 "Resource": [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]}  # fmt: skip
        client.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [allow]}))
        for key, body in objects.items():
            client.put_object(Bucket=name, Key=key, Body=body)

    def faults(self, **settings: Any) -> None:
        """See the server's own help for the settings (slowdown, error, truncate, first, per_second, ...)."""
        self._control("PUT", json.dumps(settings).encode())

    def counts(self) -> dict[str, int]:
        """Requests served by method, and faults by kind, since `faults` was last called."""
        return json.loads(self._control("GET"))["counts"]

    def _control(self, method: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"{self.url}/_faults", data=body, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    need(S3_SERVER.exists(), f"the S3 server with faults {S3_SERVER}")
    ready = tmp_path_factory.mktemp("s3") / "ready"
    server = subprocess.Popen([sys.executable, S3_SERVER, "--ready-file", ready], stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            if ready.exists():
                break
            assert server.poll() is None, "the S3 server ended at once"
            time.sleep(0.1)
        yield S3(ready.read_text().strip())
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def s3(s3_endpoint: S3) -> Iterator[S3]:
    """The endpoint without faults; whatever a test sets is taken away after it."""
    s3_endpoint.faults()
    yield s3_endpoint
    s3_endpoint.faults()


@pytest.fixture(scope="session", autouse=True)
def _no_slurm() -> Iterator[pytest.MonkeyPatch]:
    """Snakemake asks an installed Slurm for its settings as it starts, and waits for 9 s where Slurm does not run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", os.devnull)
        yield patch


@pytest.fixture(scope="session")
def slurm(_no_slurm: pytest.MonkeyPatch) -> Iterator[None]:
    """A Slurm that takes jobs: the machine's own, or one of three nodes that is started here and stopped afterwards."""

    def succeeds(*command: Any, **more: str) -> bool:
        try:
            return subprocess.run(command, capture_output=True, check=False, env=os.environ | more).returncode == 0
        except FileNotFoundError:
            return False

    _no_slurm.undo()
    folder = Path(tempfile.gettempdir())
    ours = folder / "emsuite-slurm-of-tests"
    # For all test processes: whoever starts or stops Slurm holds the first lock, and only meanwhile; whoever uses it
    # holds the second. One lock for both would make a process wait for the whole work of another that came first.
    with open(f"{ours}-starts.lock", "w") as starts, open(f"{ours}.lock", "w") as users:
        fcntl.flock(starts, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)
        if not succeeds("sinfo"):
            need(START_SLURM.exists(), f"a running Slurm, or {START_SLURM}")
            ours.touch()
            need(
                succeeds(START_SLURM, SLURM_TEST_NODES="3", SLURM_TEST_CPUS="2"),
                f"a Slurm that {START_SLURM} can start",
            )
        fcntl.flock(starts, fcntl.LOCK_UN)
        yield
        fcntl.flock(starts, fcntl.LOCK_EX)
        with contextlib.suppress(BlockingIOError):  # the last to use it stops it
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if ours.exists():
                succeeds(START_SLURM.with_name("stop-slurm"))
                ours.unlink()


@pytest.fixture(scope="session")
def image() -> Path:
    """The suite's image, built by containers/build; read-only."""
    path = Path(os.environ.get("EMSUITE_TEST_IMAGE", ROOT / "containers/emsuite.sif"))
    need(shutil.which("apptainer") is not None, "apptainer, which runs images")
    need(path.is_file(), f"the image {path}, made by containers/build or named by EMSUITE_TEST_IMAGE")
    return path.resolve()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project as it is in git, in a folder of its own."""
    return copy_project(tmp_path / "project")


@pytest.fixture
def logger() -> Iterator[None]:
    """Parsing a script's command line sets up logging; as it was, afterwards."""
    logger = logging.getLogger("emsuite")
    before = logger.level, logger.propagate, logger.handlers
    yield
    logger.level, logger.propagate, logger.handlers = before


@pytest.fixture
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails for a while is tried again almost at once."""
    monkeypatch.setattr("emsuite.download.retry._FIRST_DELAY", 0.002)


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a stage script, as `run_script("01_data/fetch_data.py", "--help")`, from a folder not the project's."""

    def run(
        script: str, *arguments: Any, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / script), *(str(argument) for argument in arguments)]
        return subprocess.run(command, cwd=cwd or tmp_path, capture_output=True, text=True, timeout=280,
                              env=os.environ | environment)  # fmt: skip

    return run


class Ended(NamedTuple):
    """How a script ended: its exit code and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def call_script(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Ended]]:
    """As `run_script`, but inside this process, which saves the imports; what is no clean end is raised here."""
    logger = logging.getLogger("emsuite")
    before = logger.level, logger.propagate, logger.handlers

    def call(script: str | Path, *arguments: Any, cwd: Path | None = None) -> Ended:
        path = ROOT / script
        spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.chdir(cwd or tmp_path)
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            module.main.main([str(argument) for argument in arguments])
        return Ended(int(end.value.code or 0), *capsys.readouterr())

    yield call
    logger.level, logger.propagate, logger.handlers = before


class Cells(NamedTuple):
    """Cells with walls between them (label 0), and perfect affinities of them, in `path`/affs and `path`/labels."""

    path: Path
    labels: np.ndarray
    affs: np.ndarray


@pytest.fixture
def cells(tmp_path: Path) -> Cells:
    """Convex cells, (40, 48, 56) voxels of (8, 8, 8) nm from (80, 160, 240) nm on."""
    from scipy.spatial import KDTree

    from emsuite.io.volume import create_volume

    shape = (40, 48, 56)
    centres = np.random.default_rng(0).uniform(0, shape, (30, 3))
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    distance, nearest = KDTree(centres).query(grid, k=2)
    labels = np.where(distance[..., 1] - distance[..., 0] > 2, nearest[..., 0] + 1, 0).astype(np.uint64)
    affs = np.zeros((3, *shape), np.uint8)
    for axis in range(3):
        here, before = np.moveaxis(labels, axis, 0)[1:], np.moveaxis(labels, axis, 0)[:-1]
        np.moveaxis(affs[axis], axis, 0)[1:] = 255 * ((here == before) & (here != 0))
    path = tmp_path / "cells.zarr"
    for name, array in {"affs": affs, "labels": labels}.items():
        volume = create_volume(path / name, array.shape, array.dtype, (8, 8, 8), (80, 160, 240))
        volume.write(volume.roi, array)
    return Cells(path, labels, affs)


@pytest.fixture
def thin_networks(tmp_path: Path) -> Path:
    """A copy of 02_train/*/*.yaml with few feature maps, as the recorded TensorFlow checkpoints have them."""
    root = tmp_path / "02_train"
    shutil.copytree(ROOT / "01_data/datasets", tmp_path / "01_data/datasets")
    for path in (path for path in SETTINGS if path.is_relative_to(ROOT / "02_train")):
        text = re.sub(r"num_fmaps: \d+", "num_fmaps: 1", path.read_text())
        text = re.sub(r"fmap_inc_factor: \d+", "fmap_inc_factor: 2", text)
        copy = root / path.relative_to(ROOT / "02_train")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(re.sub(r"num_fmaps_out: \d+", "num_fmaps_out: 3", text))
    return root
