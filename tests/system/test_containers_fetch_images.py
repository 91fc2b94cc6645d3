"""Images from a real S3 endpoint that throttles, truncates, refuses and goes away."""

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import ROOT
from emsuite.common.container_image import recorded
from emsuite.download import retry
from emsuite.download.object_store import S3Store

SCRIPT = "containers/fetch_images.py"
LARGE = np.random.default_rng(0).bytes(40 << 20)  # more than is fetched in one go
SHA256 = hashlib.sha256(LARGE).hexdigest()


@pytest.fixture
def bucket(s3: Any, request: pytest.FixtureRequest) -> str:
    name = "images-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    s3.public_bucket(name, {"lab/emsuite.sif": LARGE, "lab/lsd:v0.8.img": b"old image"})
    return name


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*")}


def test_by_key_with_its_digest_under_faults(s3: Any, bucket: str, call_script: Callable, tmp_path: Path) -> None:
    asked = [f"s3://{bucket}/lab/emsuite.sif", "--sha256", SHA256, "--endpoint-url", s3.url, "--out", tmp_path / "i"]
    s3.faults(slowdown=0.2, truncate=0.5, error=0.1, seed=3)
    done = call_script(SCRIPT, *asked)
    assert done.code == 0, done.err
    assert s3.counts()["truncated"] >= 1, s3.counts()
    assert done.out == f"{tmp_path}/i/emsuite.sif: verified by its sha256; sha256 {SHA256}\n"
    assert (tmp_path / "i/emsuite.sif").read_bytes() == LARGE
    assert leftovers(tmp_path / "i") == {"emsuite.sif", "emsuite.sif.json"}
    s3.faults()
    assert "already there" in call_script(SCRIPT, *asked).out
    assert s3.counts() == {"GET": 1}


def test_by_name_without_a_digest(s3: Any, bucket: str, call_script: Callable, tmp_path: Path) -> None:
    known = tmp_path / "images.yaml"
    known.write_text(f"images:\n  lsd: {{url: 's3://{bucket}/lab/lsd:v0.8.img'}}\n  own: {{}}\n")
    asked = ["--known", known, "--endpoint-url", s3.url, "--out", tmp_path / "i"]
    done = call_script(SCRIPT, "lsd", *asked)
    assert done.code == 0, done.err
    assert "lsd_v0.8.img: verified by its ETag (no sha256 is recorded for it)" in done.out
    assert recorded(tmp_path / "i/lsd_v0.8.img")["source"] == f"s3://{bucket}/lab/lsd:v0.8.img"
    assert "already there" in call_script(SCRIPT, "lsd", *asked).out
    s3.client().put_object(Bucket=bucket, Key="lab/lsd:v0.8.img", Body=b"new image")
    assert "verified by its ETag" in call_script(SCRIPT, "lsd", *asked).out
    assert (tmp_path / "i/lsd_v0.8.img").read_bytes() == b"new image"
    assert "images.yaml: own: url is not set" in call_script(SCRIPT, "own", *asked).err
    assert "expected s3://BUCKET/KEY or one of lsd, own" in call_script(SCRIPT, "lsdd", *asked).err


def test_the_file_of_known_images_names_the_originals(call_script: Callable) -> None:
    done = call_script(SCRIPT, "emsuite")
    assert done.code == 2
    assert done.err.startswith("error: ")
    text = (ROOT / "containers/images.yaml").read_text()
    assert "s3://open-neurodata/funke/singularity/lsd:v0.8.img" in text
    assert "s3://open-neurodata/funke/singularity/lsd_legacy.img" in text


def test_another_image_than_recorded_never_takes_its_place(
    s3: Any, bucket: str, call_script: Callable, tmp_path: Path
) -> None:
    asked = [f"s3://{bucket}/lab/emsuite.sif", "--sha256", "0" * 64, "--endpoint-url", s3.url, "--out", tmp_path / "i"]
    done = call_script(SCRIPT, *asked)
    assert done.code == 1
    assert f"is not the image that was recorded: sha256 {SHA256}, expected 0000" in done.err
    assert leftovers(tmp_path / "i") == set()


def test_killed_and_continued(s3: Any, bucket: str, call_script: Callable, tmp_path: Path) -> None:
    out = tmp_path / "i"
    asked = [f"s3://{bucket}/lab/emsuite.sif", "--endpoint-url", s3.url, "--out", out, "--workers", "1"]
    s3.faults(bytes_per_s=30 << 20)
    process = subprocess.Popen([sys.executable, ROOT / SCRIPT, *asked], stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + 60
    while not any(b"\1" in path.read_bytes() for path in out.glob(".*/.*.ranges")):
        assert process.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "emsuite.sif").exists()
    s3.faults()
    done = call_script(SCRIPT, *asked)
    assert done.code == 0, done.err
    assert s3.counts()["GET"] < 1 + 3  # of three ranges
    assert (out / "emsuite.sif").read_bytes() == LARGE


@pytest.mark.parametrize(
    ("key", "faults", "says"),
    [
        ("lab/none.sif", {}, "there is no such object"),
        ("lab/emsuite.sif", {"slowdown": 1}, "503 SlowDown (tried 9 times; the same command continues what is there)"),
        ("lab/emsuite.sif", {"error": 1, "methods": ["GET"]}, "500 InternalError"),
    ],
)
def test_a_bucket_that_fails_is_one_line(
    s3: Any, bucket: str, call_script: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    key: str, faults: dict, says: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(retry, "_LONGEST_DELAY", 0.01)
    s3.faults(**faults)
    done = call_script(SCRIPT, f"s3://{bucket}/{key}", "--endpoint-url", s3.url, "--out", tmp_path / "i")
    assert done.code in (1, 2)
    assert says in done.err
    assert done.err.startswith("error: s3://")
    assert not list(tmp_path.glob("i/*.sif"))


def test_a_bucket_that_refuses(s3: Any, call_script: Callable, tmp_path: Path) -> None:
    s3.client().create_bucket(Bucket="private-images")
    s3.client().put_object(Bucket="private-images", Key="a.sif", Body=b"x")
    done = call_script(SCRIPT, "s3://private-images/a.sif", "--endpoint-url", s3.url, "--out", tmp_path)
    assert done.code == 2
    assert done.err.startswith("error: s3://private-images/a.sif: access refused (403)")


def test_an_endpoint_that_goes_away_half_way(
    s3: Any, bucket: str, call_script: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "i"
    asked = [f"s3://{bucket}/lab/emsuite.sif", "--endpoint-url", s3.url, "--out", out, "--workers", "1"]
    monkeypatch.setattr(retry, "_LONGEST_DELAY", 0.01)
    original, asks = S3Store.read, []

    def read_twice(self: S3Store, *arguments: Any) -> Any:
        asks.append(arguments)
        if len(asks) > 1:
            raise retry.Unreachable(f"{self.url(arguments[0].key)}: no connection to {s3.url}")
        return original(self, *arguments)

    monkeypatch.setattr(S3Store, "read", read_twice)
    done = call_script(SCRIPT, *asked)
    assert done.code == 1
    assert "no connection to" in done.err
    assert "the same command continues what is there" in done.err
    assert not (out / "emsuite.sif").exists()
    monkeypatch.setattr(S3Store, "read", original)
    s3.faults()
    assert call_script(SCRIPT, *asked).code == 0
    assert s3.counts()["GET"] == 1 + 2  # the first of three ranges was there
    assert (out / "emsuite.sif").read_bytes() == LARGE


def test_a_disk_that_is_too_small(
    s3: Any, bucket: str, call_script: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("emsuite.download.fetch.disk_usage", lambda path: free)
    done = call_script(SCRIPT, f"s3://{bucket}/lab/emsuite.sif", "--endpoint-url", s3.url, "--out", tmp_path / "i")
    assert done.code == 1
    assert "are to be fetched, but the disk has 1e-06 GB left" in done.err
    assert not list(tmp_path.glob("i/*.sif"))


def test_help_has_an_example(call_script: Callable) -> None:
    assert "python containers/fetch_images.py lsd" in call_script(SCRIPT, "--help").out
