"""Volumes on servers: read in place, whole whatever the server does, or one line after a bounded number of tries."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import S3, S3_SERVER, need
from emsuite.common.errors import BadInput
from emsuite.io.volume import array_names, create_volume, fingerprint, holds_array, open_volume

VOXELS = (np.cumsum(np.random.default_rng(0).integers(-3, 4, (20, 30, 40)), axis=2) % 256).astype(np.uint8)
ARRAYS = (
    "v3.zarr/volumes/raw",
    "v3_no_shards.zarr/volumes/raw",
    "v2.zarr/volumes/raw",
    "c.n5/volumes/raw",
    "p.precomputed",
)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of one volume in each format."""
    folder = tmp_path_factory.mktemp("volumes")
    for name in ARRAYS:
        version: Any
        version = 3 if name.startswith("v3") else 2
        shards = (16, 16, 16) if name.startswith("v3.") else None
        volume = create_volume(
            folder / name, VOXELS.shape, np.uint8, (40, 4, 4), (120, 8, 4), (8, 8, 8), version, shards
        )
        volume.write(volume.roi, VOXELS)
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def bucket(s3: S3, objects: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    name = f"volumes-{abs(hash(request.node.name))}"
    s3.public_bucket(name, objects)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    for key in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(key, raising=False)
    return name


def urls(s3: S3, bucket: str) -> list[str]:
    plain = [f"{server}/{name}" for server in (f"s3://{bucket}", f"{s3.url}/{bucket}") for name in ARRAYS[:-1]]
    return [*plain, f"precomputed://s3://{bucket}/{ARRAYS[-1]}", f"precomputed://{s3.url}/{bucket}/{ARRAYS[-1]}/4_4_40"]


def test_every_format_is_read_in_place(s3: S3, bucket: str) -> None:
    for url in urls(s3, bucket):
        for path in (url, Path(url)):
            volume = open_volume(path)
            np.testing.assert_array_equal(volume.read(), VOXELS)
            assert (tuple(volume.voxel_size), tuple(volume.offset)) == ((40, 4, 4), (120, 8, 4))
        np.testing.assert_array_equal(volume[3:5, -4:, ::2], VOXELS[3:5, -4:, ::2])
        assert holds_array(Path(url))
        assert fingerprint(Path(url)) == fingerprint(Path(url))
        with pytest.raises(BadInput, match="read only"):
            open_volume(url, "r+")
    assert array_names(Path(f"precomputed://s3://{bucket}/p.precomputed")) == ["4_4_40"]


@pytest.mark.parametrize("faults", [{"slowdown": 0.2}, {"truncate": 0.2}, {"error": 0.2}], ids=str)
def test_a_server_that_fails_now_and_then(s3: S3, bucket: str, faults: dict[str, float]) -> None:
    s3.faults(**faults)
    for url in (urls(s3, bucket)[0], urls(s3, bucket)[5]):
        np.testing.assert_array_equal(open_volume(url).read(), VOXELS)


@pytest.mark.parametrize("faults", [{"slowdown": 1}, {"truncate": 1}], ids=str)
def test_a_server_that_always_fails_is_told_in_one_line(s3: S3, bucket: str, faults: dict[str, float]) -> None:
    volume = open_volume(f"s3://{bucket}/{ARRAYS[0]}")
    s3.faults(**faults)
    begin = time.monotonic()
    with pytest.raises(BadInput, match=f"s3://{bucket}/{ARRAYS[0]}: cannot be read: ") as error:
        volume.read()
    assert time.monotonic() - begin < 40
    assert len(str(error.value)) < 600


def test_what_is_missing(s3: S3, bucket: str) -> None:
    for url in (f"s3://{bucket}/none.zarr/raw", f"{s3.url}/{bucket}/none.n5", f"precomputed://s3://{bucket}/none",
                "https://user:word@host/x.zarr", "s3://b?x=1"):  # fmt: skip
        with pytest.raises(BadInput) as error:
            open_volume(url)
        assert "word" not in str(error.value)


def test_signed_requests(s3: S3, objects: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    client = s3.client()
    client.create_bucket(Bucket="private-volumes")
    for key, body in objects.items():
        client.put_object(Bucket="private-volumes", Key=key, Body=body)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    np.testing.assert_array_equal(open_volume(f"s3://private-volumes/{ARRAYS[0]}").read(), VOXELS)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")


def test_a_server_that_dies(tmp_path: Path, objects: dict[str, bytes]) -> None:
    need(S3_SERVER.exists(), f"the S3 server with faults {S3_SERVER}")
    ready = tmp_path / "ready"
    server = subprocess.Popen([sys.executable, S3_SERVER, "--ready-file", ready], stdout=subprocess.DEVNULL)
    try:
        while not ready.exists():
            time.sleep(0.1)
        s3 = S3(ready.read_text().strip())
        s3.public_bucket("dying", objects)
        volume = open_volume(f"{s3.url}/dying/{ARRAYS[0]}")
        assert volume[:8].any()
    finally:
        server.kill()
        server.wait()
    begin = time.monotonic()
    with pytest.raises(BadInput, match="cannot be read: "):
        volume.read()
    assert time.monotonic() - begin < 60
