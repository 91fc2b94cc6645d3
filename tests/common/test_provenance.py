import json
import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from builders import ROOT
from emsuite.common.provenance import (
    as_recorded,
    checksum,
    container,
    git_commit,
    input_path,
    machine,
    package_versions,
    peak_memory,
    process_seconds,
    provenance,
    published,
    recorded_settings,
    reproducible,
)
from emsuite.io.volume import create_volume


def test_everything_is_there_and_can_be_written_as_json(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("x")
    record = provenance({"a": 1}, {"text": tmp_path / "in.txt"}, seed=7)
    assert json.loads(json.dumps(record)) == record
    assert set(record) == {
        "command", "settings", "seed", "inputs", "git_commit", "packages", "container", "machine", "started", "seconds",
        "peak_memory", "private",
    }  # fmt: skip
    assert record["settings"] == {"a": 1}
    assert record["seed"] == 7
    assert record["inputs"]["text"]["path"] == "in.txt"
    assert record["private"]["inputs"]["text"] == str(tmp_path / "in.txt")
    assert record["seconds"] > 0


def tells(record: dict, *words: str) -> list[str]:
    """The words that occur in a record."""
    return [word for word in words if word in json.dumps(record)]


def test_only_the_private_part_tells_of_user_and_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "jane doe"
    monkeypatch.setattr("socket.gethostname", lambda: "host-of-jane")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr("sys.argv", [str(home / "x.py"), "--raw", str(home / "v.zarr/raw"), f"--out={home}/p.zarr",
                                     f"train=[{home}/v.zarr@0:8,:,:, {home}/w]", str(home), "data/w.zarr"])  # fmt: skip
    settings = {"raw": str(home / "v.zarr/raw"), "of": {"source": (home / "lab").as_uri(), "size": (1, 2)}}
    record = provenance(settings, {"raw": home / "v.zarr/raw", "mask": ROOT / "data/m.zarr"})
    public = published(record)
    assert public == {key: value for key, value in record.items() if key != "private"}
    assert tells(record["private"], "host-of-jane", "jane doe", str(home)) == ["host-of-jane", "jane doe", str(home)]
    assert not tells(public, "host-of-jane", "jane", str(tmp_path), str(Path.home()), str(ROOT))
    assert public["command"] == ["x.py", "--raw", "v.zarr/raw", "--out=p.zarr", "train=[v.zarr@0:8,:,:, w]", "~",
                                 "data/w.zarr"]  # fmt: skip
    assert public["inputs"]["mask"]["path"] == "data/m.zarr", "paths in the project count from its root"
    assert public["settings"] == {"raw": "v.zarr/raw", "of": {"source": "lab", "size": [1, 2]}}
    assert recorded_settings(record) == as_recorded(settings)
    assert recorded_settings(public) == public["settings"]


def test_no_part_holds_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "hunter2"
    monkeypatch.setattr("sys.argv", ["x.py", "--endpoint-url", f"http://me:{secret}@host", "--token", secret])
    url = f"https://host/v?X-Amz-Signature={secret}"
    record = provenance({"source": url, "password": secret}, {"raw": Path(f"s3://a:{secret}@b/v.zarr")})
    assert secret not in json.dumps(record)
    assert record["private"]["command"][2] == "http://***@host"


def test_a_record_of_an_earlier_version_can_be_published() -> None:
    command = ["predict.py", "--raw", "/home/jane/v.zarr/raw"]
    inputs = {"raw": {"path": "/home/jane/v.zarr/raw", "checksum": "listing:1"}}
    old = {"command": command, "settings": {"raw": "/home/jane/v.zarr/raw"}, "inputs": inputs,
           "machine": {"host": "jane", "cpus": 2, "gpu": None}, "seconds": 3.5, "digest": "abc"}  # fmt: skip
    assert recorded_settings(old) == old["settings"]
    public = published(old)
    assert not tells(public, "jane")
    assert public["machine"] == {"cpus": 2, "gpu": None}
    assert (public["digest"], public["inputs"]["raw"]["checksum"]) == ("abc", "listing:1")


def test_what_runs_share_holds_no_time_and_no_machine() -> None:
    record = provenance({"a": 1}, seed=3)
    assert set(reproducible(record)) == {"settings", "seed", "inputs", "git_commit", "packages", "container"}
    assert reproducible(record | {"seconds": 0, "command": ["other"]}) == reproducible(record)


def test_inputs_are_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their absolute path, and where that is gone or was not published, by the public one."""
    monkeypatch.chdir(tmp_path)
    record = provenance({}, {"raw": Path("v.zarr")})
    assert input_path(record, "raw") == tmp_path / "v.zarr"
    (tmp_path / "v.zarr").mkdir()
    for earlier in (record, published(record), published(record) | {"private": {"inputs": {"raw": "/gone/v.zarr"}}}):
        found = input_path(earlier, "raw")
        assert found is not None
        assert found.samefile(tmp_path / "v.zarr")
    assert input_path(record, "other") is None
    assert input_path({}, "raw") is None


def test_seconds_count_from_the_start_of_the_process() -> None:
    """Not from the import of the library: what a run did before that counts as well."""
    late = "import time; time.sleep(0.3); from emsuite.common.provenance import *; print(provenance({})['seconds'])"
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", late], capture_output=True, text=True, check=True)
    assert 0.3 < float(done.stdout) < time.monotonic() - begun + 2 / os.sysconf("SC_CLK_TCK")
    assert time.strptime(provenance({})["started"], "%Y-%m-%dT%H:%M:%SZ") <= time.gmtime(
        time.time() - process_seconds() + 1
    )


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert checksum(tmp_path / "file") == expected


def test_a_folder_is_known_by_names_and_sizes_and_by_the_content_of_some_files(tmp_path: Path) -> None:
    volume = create_volume(tmp_path / "v.zarr/raw", (4, 4, 4), np.uint8, (8, 8, 8), (0, 0, 0))
    names = ("zarr.json",)
    first = checksum(tmp_path / "v.zarr", names)
    assert first.startswith("listing:")
    assert checksum(tmp_path / "v.zarr", names) == first
    volume.write(volume.roi, np.ones((4, 4, 4), np.uint8))
    written = checksum(tmp_path / "v.zarr", names)
    size = checksum(tmp_path / "v.zarr")
    volume.array.attrs["offset"] = [8, 0, 0]
    moved = checksum(tmp_path / "v.zarr", names)
    assert len({first, written, moved}) == 3
    assert checksum(tmp_path / "v.zarr") == size, "same names, same sizes"


def test_inputs_are_recorded_with_the_fingerprint_of_the_caller(tmp_path: Path) -> None:
    record = provenance({}, {"raw": tmp_path / "v.zarr"}, fingerprint=lambda path: f"mine:{path.name}")
    assert record["inputs"]["raw"]["checksum"] == "mine:v.zarr"


def test_the_same_listing_at_another_place_is_the_same(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        for name in ("x/1", "y/2", "3") if folder == "a" else ("3", "y/2", "x/1"):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).write_text("text")
    assert checksum(tmp_path / "a") == checksum(tmp_path / "b")


def test_an_array_in_an_hdf5_file_is_known_by_the_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "v.hdf", "w") as file:
        file["volumes/raw"] = [1, 2]
    assert checksum(tmp_path / "v.hdf/volumes/raw") == checksum(tmp_path / "v.hdf")
    assert checksum(tmp_path / "none.hdf/volumes/raw") == "missing"


def test_the_commit_is_that_of_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    git_commit.cache_clear()
    here = Path(__file__).parent
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    if head.returncode == 0:
        assert (git_commit() or "").removesuffix("+changes") == head.stdout.strip()
    git_commit.cache_clear()
    monkeypatch.setenv("EMSUITE_GIT_COMMIT", "abc")
    assert git_commit() == "abc"
    git_commit.cache_clear()


def test_without_git_the_commit_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    git_commit.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    assert git_commit() is None
    git_commit.cache_clear()


def test_the_container_is_what_apptainer_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"):
        monkeypatch.delenv(name, raising=False)
    assert container() is None
    monkeypatch.setenv("APPTAINER_CONTAINER", "/images/emsuite.sif")
    assert container() == {"image": "emsuite.sif", "digest": "unknown"}
    monkeypatch.setenv("EMSUITE_IMAGE_DIGEST", "sha256:1")
    assert container() == {"image": "emsuite.sif", "digest": "sha256:1"}


def test_machine_and_memory() -> None:
    assert machine()["cpus"] == len(os.sched_getaffinity(0))
    before = peak_memory()["process"]
    touched = np.ones(60_000_000, np.uint8)
    assert peak_memory()["process"] >= touched.nbytes
    assert before > 1_000_000, "bytes, not kilobytes"
    assert {"python", "emsuite", "numpy", "torch"} <= set(package_versions())
