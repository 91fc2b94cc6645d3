"""Single files from web servers and folders: whole and verified, or not there; every fault ends in one line."""

import hashlib
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.outputs import read_manifest
from emsuite.download import resumable
from emsuite.download.fetch_file import fetch_file
from emsuite.download.object_store import FolderStore
from emsuite.download.web_store import CONNECTIONS, WebStore
from web_server import WebServer, serve


def body() -> bytes:
    """An HDF5 file of 100,000 bytes: an array, and zeros that nothing points at."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["volumes/raw"] = np.random.default_rng(0).integers(0, 256, (9, 100, 100), np.uint8)
    return stream.getvalue().ljust(100_000, b"\0")


BODY = body()
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server(short_delays: None) -> Iterator[WebServer]:
    with serve({"a.hdf": BODY}) as running:
        yield running


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable, "LARGE_OBJECT_BYTES", 20_000)
    monkeypatch.setattr(resumable, "RANGE_BYTES", 10_000)


def fetch(server: WebServer, folder: Path, sha256: str = SHA256, workers: int = 2) -> tuple[Path, int]:
    path = folder / "a.hdf"
    return path, fetch_file(WebStore(), server.url("a.hdf"), path, sha256=sha256, workers=workers).transferred


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_in_ranges_and_is_not_fetched_again(server: WebServer, tmp_path: Path, small_ranges: None) -> None:
    path, transferred = fetch(server, tmp_path)
    assert (path.read_bytes(), transferred) == (BODY, 1)
    assert sorted(server.asked)[1:] == sorted(f"bytes={n}-{n + 9999}" for n in range(0, 100_000, 10_000))
    manifest = read_manifest(path)
    assert manifest["settings"] == {"source": server.url("a.hdf")}
    assert manifest["written"]["sha256"] == SHA256
    asked = len(server.asked)
    assert fetch(server, tmp_path)[1] == 0
    assert len(server.asked) == asked, "what is verified needs no server"
    assert left(tmp_path) == [".a.hdf.emsuite", "a.hdf", "a.hdf.manifest.json"]


@pytest.mark.parametrize("fault", ["503", "429", "truncate", "reset", "ignore range"])
def test_faults_that_pass_are_overcome(server: WebServer, tmp_path: Path, small_ranges: None, fault: str) -> None:
    server.faults = ["", fault, "", fault, fault]
    path, _ = fetch(server, tmp_path)
    assert path.read_bytes() == BODY
    assert server.faults == []


def test_a_server_without_ranges_sends_the_whole_file(server: WebServer, tmp_path: Path, small_ranges: None) -> None:
    server.knows_ranges, server.faults = False, ["", "truncate", "reset"]
    path, _ = fetch(server, tmp_path)
    assert path.read_bytes() == BODY
    assert server.asked == ["bytes=0-0", "", "", ""]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_keeps_breaking_off_leaves_none_and_is_continued(
    server: WebServer, tmp_path: Path, small_ranges: None, ranges: bool
) -> None:
    server.knows_ranges, server.faults = ranges, ["", "", *["truncate"] * 40]
    if not ranges:
        server.faults.pop(0)
    with pytest.raises(RunFailed, match=r"a\.hdf: \d+ bytes came, \d+ were announced"):
        fetch(server, tmp_path, workers=1)
    assert not (tmp_path / "a.hdf").exists()
    assert not (tmp_path / "a.hdf.manifest.json").exists()
    server.faults, server.asked = [], []
    assert fetch(server, tmp_path)[0].read_bytes() == BODY
    later = [f"bytes={n}-{n + 9999}" for n in range(10_000, 100_000, 10_000)]  # the first came before the break
    assert sorted(server.asked) == sorted(["bytes=0-0", *(later if ranges else [""])])


@pytest.mark.parametrize("large", [True, False])
def test_another_file_than_the_recorded_one_is_refused_and_removed(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    monkeypatch.setattr(resumable, "LARGE_OBJECT_BYTES", 20_000 if large else 200_000)
    with pytest.raises(RunFailed, match=f"SHA-256 {SHA256}, expected {'0' * 64}; what came is removed"):
        fetch(server, tmp_path, sha256="0" * 64)
    assert server.sent < 1.5 * len(BODY), "a file that differs is not fetched again and again"
    assert left(tmp_path) == [".a.hdf.emsuite", "a.hdf.unfinished.json"]


def test_a_file_that_changes_on_the_way_is_noticed(server: WebServer, tmp_path: Path, small_ranges: None) -> None:
    def change() -> None:
        while len(server.asked) < 3:
            pass
        server.files["a.hdf"], server.etag = BODY[:-1] + b"!", '"v2"'
        server.hold.set()  # type: ignore[union-attr]

    server.hold = threading.Event()
    threading.Thread(target=change, daemon=True).start()
    with pytest.raises(RunFailed, match="changed while it was fetched"):
        fetch(server, tmp_path)
    assert not (tmp_path / "a.hdf").exists()


def test_a_stopped_run_is_continued_with_what_is_missing(
    server: WebServer, tmp_path: Path, small_ranges: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.faults = [""] * 5 + ["401"] * 40
    with pytest.raises(BadInput, match=r"access refused \(401\)"):
        fetch(server, tmp_path, workers=1)
    assert any(name.endswith(".bytes") for name in left(tmp_path))
    server.faults, server.asked = [], []
    assert fetch(server, tmp_path)[0].read_bytes() == BODY
    assert len(server.asked) == 1 + 6


@pytest.mark.parametrize(
    ("faults", "name", "message"),
    [
        ([], "b.hdf", r"b\.hdf: there is no such file \(404\)"),
        (["403"], "a.hdf", r"access refused \(403\)"),
        (["418"], "a.hdf", "the server answers 418"),
        (["500"] * 9, "a.hdf", "500"),
        (["no length"], "a.hdf", "does not tell the size"),
    ],
)
def test_what_cannot_be_fetched_is_told(
    server: WebServer, tmp_path: Path, faults: list[str], name: str, message: str
) -> None:
    server.faults = faults
    server.knows_ranges = faults != ["no length"]
    with pytest.raises((BadInput, RunFailed), match=message):
        fetch_file(WebStore(), server.url(name), tmp_path / name, sha256=SHA256)
    assert left(tmp_path) == []


def test_a_server_that_is_not_there(tmp_path: Path, short_delays: None) -> None:
    with pytest.raises(RunFailed, match=r"http://127\.0\.0\.1:9/a\.hdf: no connection"):
        fetch_file(WebStore(), "http://127.0.0.1:9/a.hdf", tmp_path / "a.hdf", sha256=SHA256)


def test_a_file_that_was_put_there_by_hand_is_verified_and_taken(server: WebServer, tmp_path: Path) -> None:
    (tmp_path / "a.hdf").write_bytes(BODY)
    assert fetch(server, tmp_path)[1] == 0
    assert read_manifest(tmp_path / "a.hdf")["written"]["sha256"] == SHA256
    assert server.sent <= 1, "the first byte alone"


def test_something_else_at_its_path_is_kept(server: WebServer, tmp_path: Path) -> None:
    (tmp_path / "a.hdf").write_bytes(b"mine")
    with pytest.raises(BadInput, match="holds something else than"):
        fetch(server, tmp_path)
    assert (tmp_path / "a.hdf").read_bytes() == b"mine"
    (tmp_path / "a.hdf").unlink()
    (tmp_path / "a.hdf").mkdir()
    with pytest.raises(BadInput, match="is a link or a folder"):
        fetch(server, tmp_path)


def test_an_edited_file_is_moved_aside(server: WebServer, tmp_path: Path) -> None:
    path, _ = fetch(server, tmp_path)
    path.write_bytes(b"edited")
    assert fetch(server, tmp_path)[1] == 1
    assert path.read_bytes() == BODY
    assert (tmp_path / "a.hdf.before1").read_bytes() == b"edited"


def test_a_web_server_has_few_guests_at_once(server: WebServer, tmp_path: Path, small_ranges: None) -> None:
    server.hold = threading.Event()
    running = threading.Thread(target=fetch, args=(server, tmp_path), kwargs={"workers": 10})
    running.start()
    while len(server.asked) < 1 + CONNECTIONS:
        pass
    assert not running.join(0.3)
    assert len(server.asked) == 1 + CONNECTIONS
    server.hold.set()
    running.join()
    assert (tmp_path / "a.hdf").read_bytes() == BODY


def test_a_shared_folder_is_copied_from_and_known_by_its_arrays(tmp_path: Path) -> None:
    shared, path = tmp_path / "shared", tmp_path / "data/a.hdf"
    shared.mkdir()
    with h5py.File(shared / "a.hdf", "w") as file:
        file["volumes/raw"] = np.zeros((2, 3, 4), np.uint8)
    assert fetch_file(FolderStore(shared), "a.hdf", path).transferred == 1
    assert path.read_bytes() == (shared / "a.hdf").read_bytes()
    assert read_manifest(path)["arrays"].keys() == {"volumes/raw"}
    assert fetch_file(FolderStore(shared), "a.hdf", path).transferred == 0
    with pytest.raises(RunFailed, match="is not the file that was recorded"):
        fetch_file(FolderStore(shared), "a.hdf", tmp_path / "other/a.hdf", sha256=SHA256)
    os.truncate(shared / "a.hdf", 100)
    with pytest.raises(BadInput, match="cannot be read as HDF5"):
        fetch_file(FolderStore(shared), "a.hdf", path)
    assert (tmp_path / "data/a.hdf.unfinished.json").exists()
    with pytest.raises(BadInput, match="no such file"):
        fetch_file(FolderStore(shared), "b.hdf", path)
