import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from builders import ROOT, files_in
from conftest import Ended
from emsuite.common.errors import BadInput
from emsuite.common.files import sha256
from emsuite.io.volume import open_volume
from web_server import serve

SCRIPT = "01_data/fetch_data.py"
PLACE = "funke/fib25/training"
Run = Callable[..., subprocess.CompletedProcess[str]]
Call = Callable[..., Ended]


def public_volume(s3: Any, bucket: str, name: str = "trvol-250-2", number: int = 12) -> dict[str, bytes]:
    content = {"volumes/raw/.zarray": b"{}"} | {f"volumes/raw/0.0.{i}": bytes([i]) * 4000 for i in range(number)}
    s3.public_bucket(bucket, {f"{PLACE}/{name}.zarr/{key}": body for key, body in content.items()})
    return content


def test_default_volume_from_a_bucket_and_again(s3: Any, call_script: Call, tmp_path: Path) -> None:
    content = public_volume(s3, "script-default")
    asked = ["--dataset", "fib25", "--bucket", "script-default", "--endpoint-url", s3.url, "--out", tmp_path / "d"]
    first = call_script(SCRIPT, *asked)
    assert first.code == 0, first.err
    assert "13 objects, 13 fetched now" in first.out
    assert files_in(tmp_path / "d" / PLACE / "trvol-250-2.zarr") == content
    assert (tmp_path / "d" / PLACE / "trvol-250-2.zarr.manifest.json").exists()
    s3.faults()
    second = call_script(SCRIPT, *asked)
    assert "13 objects, 0 fetched now" in second.out
    assert s3.counts() == {"GET": 1}


def test_a_password_for_the_endpoint_shows_nowhere(s3: Any, call_script: Call, tmp_path: Path) -> None:
    """It is refused: it is no way to give a key. Neither messages nor files hold it."""
    addresses = (s3.url.replace("://", "://jane:hunter2@"), "http://jane:hunter2@127.0.0.1:9/", "http://jane:hunter2@")
    for address in addresses:
        for verbose in ([], ["-v"]):
            asked = ["-d", "fib25", "--bucket", "b", "--endpoint-url", address, "--out", tmp_path / "d", *verbose]
            done = call_script(SCRIPT, *asked)
            assert done.code == 2
            assert "holds a user or a password" in done.err
            assert "hunter2" not in done.out + done.err
    assert b"hunter2" not in b"".join(files_in(tmp_path).values())


def test_killed_and_restarted_fetches_only_what_is_missing(s3: Any, run_script: Run, tmp_path: Path) -> None:
    content = public_volume(s3, "script-kill", number=40)
    volume = tmp_path / "d" / PLACE / "trvol-250-2.zarr"
    asked = ["--dataset", "fib25", "--bucket", "script-kill", "--endpoint-url", s3.url, "--out", tmp_path / "d"]
    s3.faults(latency_s=0.1)
    command = [sys.executable, ROOT / SCRIPT, *asked, "--workers", "2"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + 60
    while len(list(volume.glob("volumes/raw/0.*"))) < 8:
        assert process.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    whole = {key for key, body in content.items() if (volume / key).exists()}
    assert 8 <= len(whole) < 41
    assert all((volume / key).read_bytes() == content[key] for key in whole)
    with pytest.raises(BadInput, match="unfinished"):
        open_volume(volume / "volumes/raw")
    s3.faults()
    again = run_script(SCRIPT, *asked)
    assert again.returncode == 0, again.stderr
    assert f"41 objects, {41 - len(whole)} fetched now" in again.stdout
    assert s3.counts() == {"GET": 1 + 41 - len(whole)}
    assert files_in(volume) == content


def test_from_a_shared_folder(fib25_slab: Path, call_script: Call, tmp_path: Path) -> None:
    shared = fib25_slab.parents[2]
    done = call_script(SCRIPT, "-d", "fib25", "--volume", "trvol-250-2.zarr", "--from", shared, "--out", tmp_path / "d")
    assert done.code == 0, done.err
    copy = tmp_path / "d" / PLACE / "trvol-250-2.zarr"
    assert files_in(copy) == files_in(fib25_slab)
    assert os.access(copy / "volumes/labels", os.W_OK)
    assert open_volume(copy / "volumes/raw").shape == (160, 250, 250)


def test_defaults_are_those_of_the_folder_and_told(call_script: Callable[..., Any], tmp_path: Path) -> None:
    for network, expected in {
        ".": "--dataset fib25 --volume trvol-250-2",
        "02_train/hemi/small": "--dataset hemi --volume eb-inner-groundtruth-with-context-x20172-y2322-z14332 "
        "--volume pb-groundtruth-with-context-x8472-y2892-z9372",
        "02_train/zebrafinch": "--dataset zebrafinch --volume gt_z255-383_y1407-1663_x1535-1791 "
        "--volume gt_z734-884_y9561-9711_x563-713",
    }.items():
        done = call_script(SCRIPT, "--from", tmp_path, "--out", tmp_path / "d", cwd=ROOT / network)
        assert done.code == 2
        assert done.out == f"by default: {expected}\n"
    done = call_script(SCRIPT, "--volume", "trvol-250-1", "--from", tmp_path, cwd=ROOT)
    assert done.out == "by default: --dataset fib25 --volume trvol-250-1\n"


def test_all_volumes_of_a_data_set_of_ones_own(call_script: Call, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("{name: own, voxel_size: [8, 8, 8], volumes: [a, b]}")
    for name in "ab":
        (tmp_path / f"lab/own/training/{name}.zarr").mkdir(parents=True)
        (tmp_path / f"lab/own/training/{name}.zarr/.zgroup").write_text("{}")
    done = call_script(
        SCRIPT, "-d", tmp_path / "own.yaml", "--all", "--from", tmp_path / "lab", "--out", tmp_path / "d"
    )
    assert done.code == 0, done.err
    assert sorted(path.name for path in (tmp_path / "d/funke/own/training").glob("*.zarr")) == ["a.zarr", "b.zarr"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-d", "mouse"], "no data set 'mouse'; there are "),
        (["-d", "fib25", "--volume", "x"], "fib25 has no volume 'x'; it has tstvol-520-1"),
        (["-d", "fib25", "--volume", "trvol-250-1", "--all"], "expected one of the two"),
        (["-d", "phantom"], "phantom is not fetched but made: python 01_data/synthesize.py --out"),
        (["-d", "fib25", "--from", "nowhere"], "nowhere: has no trvol-250-2.zarr"),
        (["-d", "fib25", "--endpoint-url", "nonsense"], "S3 endpoint nonsense"),
        (["--from", "nowhere"], "nowhere: has no trvol-250-2.zarr"),
    ],
)
def test_bad_input_is_one_line(call_script: Call, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = call_script(SCRIPT, *arguments, "--out", tmp_path / "d")
    assert done.code == 2
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "d").exists()


def test_buckets_that_refuse_or_are_not_there(s3: Any, call_script: Call, tmp_path: Path) -> None:
    s3.client().create_bucket(Bucket="script-private")
    s3.client().put_object(Bucket="script-private", Key=f"{PLACE}/trvol-250-2.zarr/.zgroup", Body=b"{}")
    asked = ["-d", "fib25", "--endpoint-url", s3.url, "--out", tmp_path / "d", "--bucket"]
    refused = call_script(SCRIPT, *asked, "script-private")
    assert (refused.code, refused.err.count("error: ")) == (2, 1)
    assert "access refused (403)" in refused.err
    missing = call_script(SCRIPT, *asked, "script-missing")
    assert missing.code == 2
    assert "there is no bucket 'script-missing'" in missing.err


def test_endpoint_that_nobody_serves(call_script: Call, tmp_path: Path) -> None:
    done = call_script(SCRIPT, "-d", "fib25", "--endpoint-url", "http://127.0.0.1:9", "--out", tmp_path / "d")
    assert done.code == 1
    assert "no connection to http://127.0.0.1:9" in done.err
    assert not (tmp_path / "d").exists()


def test_files_on_a_web_server(call_script: Call, tmp_path: Path) -> None:
    """HDF5 files behind URLs come under their names; a second run needs no server; a wrong checksum leaves nothing."""
    cube = tmp_path / "cube.hdf"
    with h5py.File(cube, "w") as file:
        file["volumes/raw"] = np.zeros((4, 5, 6), np.uint8)
        file["volumes/raw"].attrs["resolution"] = [40.0, 4.0, 4.0]
    with serve({"good.hdf": cube.read_bytes(), "bad.hdf": cube.read_bytes() + b"!"}) as server:
        files = {name: {"url": server.url(f"{name}.hdf"), "sha256": sha256(cube)} for name in ("good", "bad")}
        own = {"name": "own", "voxel_size": [40, 4, 4], "suffix": ".hdf", "volumes": ["good", "bad"], "files": files}
        (tmp_path / "own.yaml").write_text(json.dumps(own))
        arguments = ("01_data/fetch_data.py", "--dataset", tmp_path / "own.yaml", "--out", tmp_path / "data")
        run = call_script(*arguments, "--volume", "good.hdf")
        assert run.code == 0, run.err
        place = tmp_path / "data/funke/own/training"
        assert f"{place / 'good.hdf'}: complete, 1 objects, 1 fetched now" in run.out
        assert (place / "good.hdf").read_bytes() == cube.read_bytes()
        bad = call_script(*arguments, "--volume", "bad")
        assert bad.code == 1
        assert f"error: {server.url('bad.hdf')}: is not the file that was recorded: SHA-256" in bad.err
        assert not (place / "bad.hdf").exists()
    assert "0 fetched now" in call_script(*arguments, "--volume", "good").out
    shared = call_script(*arguments[:-1], tmp_path / "other", "--volume", "good", "--from", tmp_path / "data")
    assert "1 fetched now" in shared.out, shared.err


def test_help_has_an_example(run_script: Run) -> None:
    assert "python 01_data/fetch_data.py --dataset fib25" in run_script(SCRIPT, "--help").stdout
