"""Large objects in ranges: faults, kills and changes, with ranges so small that the objects need not be large."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builders import files_in
from emsuite.common.errors import RunFailed
from emsuite.common.outputs import manifest_path
from emsuite.download import fetch, resumable, retry
from emsuite.download.fetch import fetch_objects, fetch_prefix
from emsuite.download.object_store import FolderStore, S3Store, StoredObject
from emsuite.download.resumable import PartialFile
from emsuite.download.retry import TransientError

KIB = 1 << 10
MIB = 1 << 20
RANGE = 64 * KIB
SIZE = 12 * RANGE - 1000
BODY = hashlib.shake_256(b"weights").digest(SIZE)


@pytest.fixture(autouse=True)
def small_ranges(short_delays: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable, "LARGE_OBJECT_BYTES", 2 * RANGE)
    monkeypatch.setattr(resumable, "RANGE_BYTES", RANGE)


class Noted(FolderStore):
    """A folder that notes which ranges are read; `spoil` is called with each before its bytes are given."""

    def __init__(self, root: Path):
        super().__init__(root)
        self.spans = list[tuple[int, int | None]]()
        self.lock = threading.Lock()

    def read(self, stored: StoredObject, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
        with self.lock:
            self.spans.append((begin, end))
            number = len(self.spans)
        yield from self.spoil(b"".join(super().read(stored, begin, end)), number)

    def spoil(self, body: bytes, number: int) -> Iterator[bytes]:
        yield body


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The progress bars that are made."""
    made, make = list[Any](), fetch.progress

    def progress(*given: Any, **named: Any) -> Any:
        made.append(make(*given, **named))
        return made[-1]

    monkeypatch.setattr(fetch, "progress", progress)
    return made


def lab(tmp_path: Path, body: bytes = BODY) -> Path:
    (tmp_path / "lab/net").mkdir(parents=True, exist_ok=True)
    (tmp_path / "lab/net/data").write_bytes(body)
    return tmp_path / "lab"


def bucket(s3: Any, name: str, body: bytes = BODY) -> S3Store:
    s3.public_bucket(name, {"net/data": body, "net/index": b"small"})
    return S3Store(name, s3.url)


def test_only_large_objects_are_fetched_in_ranges_and_each_range_once(tmp_path: Path) -> None:
    store = Noted(lab(tmp_path))
    (tmp_path / "lab/net/limit").write_bytes(BODY[: 2 * RANGE])
    fetch_prefix(store, "net", tmp_path / "out")
    ranges = [(i * RANGE, min((i + 1) * RANGE, SIZE)) for i in range(12)]
    assert sorted(store.spans) == sorted([*ranges, (0, 2 * RANGE)])
    assert files_in(tmp_path / "out") == {"data": BODY, "limit": BODY[: 2 * RANGE]}


def test_one_object_is_read_by_several_workers_at_once(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, all_begun = bucket(s3, "transfer-parallel"), threading.Barrier(12)
    read = store.read

    def read_together(stored: StoredObject, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
        if stored.key.endswith("data"):
            all_begun.wait(60)  # raises if its 12 ranges are not all being read by then
        yield from read(stored, begin, end)

    monkeypatch.setattr(store, "read", read_together)
    fetch_prefix(store, "net", tmp_path / "out", workers=16)
    assert (tmp_path / "out/data").read_bytes() == BODY


@pytest.mark.parametrize(
    ("faults", "seen"),
    [({"slowdown": 0.3, "error": 0.2, "truncate": 0.3}, {"503", "500", "truncated"}), ({"first": 20}, {"503"})],
)
def test_faults_are_overcome_and_progress_ends_at_the_total(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bars: list[Any], faults: dict[str, float], seen: set[str]
) -> None:
    store = bucket(s3, f"transfer-faults-{len(faults)}")
    monkeypatch.setattr(retry, "_TRIES", 50)
    s3.faults(**faults, prefix=f"/transfer-faults-{len(faults)}/net/")
    fetched = fetch_prefix(store, "net", tmp_path / "out")
    assert (fetched.objects, fetched.transferred, fetched.by_size) == (2, 2, 0)
    assert seen <= set(s3.counts())
    assert files_in(tmp_path / "out") == {"data": BODY, "index": b"small"}
    assert bars[-1].n == bars[-1].total == SIZE + 5


def test_a_failed_fetch_keeps_the_ranges_that_are_done(tmp_path: Path) -> None:
    class Failing(Noted):
        def spoil(self, body: bytes, number: int) -> Iterator[bytes]:
            yield body[:1000]
            if number > 5:
                raise TransientError("the line broke")
            yield body[1000:]

    with pytest.raises(RunFailed, match=r"the line broke \(tried 9 times; the same command continues"):
        fetch_prefix(Failing(lab(tmp_path)), "net", tmp_path / "out", workers=1)
    assert not (tmp_path / "out/data").exists()
    assert not manifest_path(tmp_path / "out").exists()
    store = Noted(tmp_path / "lab")
    fetch_prefix(store, "net", tmp_path / "out")
    assert sorted(store.spans) == [(i * RANGE, min((i + 1) * RANGE, SIZE)) for i in range(5, 12)]
    assert files_in(tmp_path / "out") == {"data": BODY}


def test_progress_begins_with_the_bytes_of_an_earlier_run(tmp_path: Path, bars: list[Any]) -> None:
    store = Noted(lab(tmp_path))
    (stored,) = store.list("net")
    part = PartialFile(tmp_path / "out/data", stored)
    part.begin()
    part.bytes_path.write_bytes(BODY)
    for index in (0, 3, 11):
        part.mark_done((index * RANGE, min((index + 1) * RANGE, SIZE)))
    fetch_objects(store, [stored], tmp_path / "out", what="test")
    assert bars[0].initial == 3 * RANGE - 1000
    assert bars[0].n == bars[0].total == SIZE
    assert sorted(begin // RANGE for begin, _ in store.spans) == [1, 2, 4, 5, 6, 7, 8, 9, 10]


def test_bytes_are_on_the_disk_before_they_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, steps = Noted(lab(tmp_path)), list[str]()
    mark_done, fsync = PartialFile.mark_done, os.fsync

    def note_mark(part: PartialFile, span: resumable.ByteRange) -> None:
        steps.append("recorded")
        mark_done(part, span)

    def note_sync(file: int) -> None:
        steps.append("on the disk")
        fsync(file)

    monkeypatch.setattr(PartialFile, "mark_done", note_mark)
    monkeypatch.setattr(os, "fsync", note_sync)
    fetch_objects(store, store.list("net"), tmp_path / "out", what="test", workers=1)
    assert steps == ["on the disk", "recorded"] * 12 + ["on the disk"]


def test_after_a_kill_before_the_last_step_nothing_is_fetched_again(tmp_path: Path) -> None:
    store = Noted(lab(tmp_path))
    (stored,) = store.list("net")
    part = PartialFile(tmp_path / "out/data", stored)
    part.begin()
    part.bytes_path.write_bytes(BODY)
    for span in part.missing_ranges():
        part.mark_done(span)
    assert fetch_prefix(store, "net", tmp_path / "out").transferred == 1
    assert store.spans == []
    assert files_in(tmp_path / "out") == {"data": BODY}


def test_a_partial_file_with_wrong_bytes_is_discarded_and_fetched_again(tmp_path: Path, bars: list[Any]) -> None:
    store = Noted(lab(tmp_path))
    (stored,) = store.list("net")
    part = PartialFile(tmp_path / "out/data", stored)
    part.begin()
    part.mark_done((0, RANGE))  # a lie: there are zeros
    fetch_prefix(store, "net", tmp_path / "out")
    assert len(store.spans) == 11 + 12
    assert bars[-1].n == bars[-1].total == SIZE
    assert files_in(tmp_path / "out") == {"data": BODY}


def test_content_that_never_matches_its_checksum_fails_and_leaves_nothing(tmp_path: Path) -> None:
    store = Noted(lab(tmp_path))
    wrong = StoredObject("net/data", "data", SIZE, "0" * 32)
    with pytest.raises(RunFailed, match=r"net/data: what came differs from its checksum 0+ \(tried 9 times"):
        fetch_objects(store, [wrong], tmp_path / "out", what="test")
    assert files_in(tmp_path / "out") == {}


@pytest.mark.parametrize("change", [-1, 1])
def test_bodies_of_another_length_fail_and_do_no_harm(tmp_path: Path, change: int) -> None:
    class Wrong(Noted):
        def spoil(self, body: bytes, number: int) -> Iterator[bytes]:
            yield from [body, b"!"] if change > 0 else [body[:-1]]

    store = Wrong(lab(tmp_path))
    (stored,) = store.list("net")
    part = PartialFile(tmp_path / "out/data", stored)
    part.begin()
    part.bytes_path.write_bytes(BODY)
    part.mark_done((RANGE, 2 * RANGE))
    with pytest.raises(RunFailed, match=f"net/data: {RANGE + change} bytes came, {RANGE} were announced"):
        fetch_prefix(store, "net", tmp_path / "out", workers=1)
    assert part.bytes_done() == RANGE
    assert part.bytes_path.read_bytes() == BODY


def test_objects_without_a_checksum_are_verified_by_size(tmp_path: Path) -> None:
    odd = StoredObject("net/data", "data", SIZE, "unknown")
    assert fetch_objects(Noted(lab(tmp_path)), [odd], tmp_path / "out", what="test") == 1
    assert files_in(tmp_path / "out") == {"data": BODY}


def test_a_full_disk_fails_in_one_line(tmp_path: Path) -> None:
    class Full(Noted):
        def spoil(self, body: bytes, number: int) -> Iterator[bytes]:
            if number > 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            yield body

    store = Full(lab(tmp_path))
    (stored,) = store.list("net")
    with pytest.raises(RunFailed, match=r"data: cannot be written: No space left on device"):
        fetch_objects(store, [stored], tmp_path / "out", what="test", workers=1)
    assert PartialFile(tmp_path / "out/data", stored).bytes_done() == 3 * RANGE


def test_an_object_that_changed_between_runs_is_fetched_from_the_start(s3: Any, tmp_path: Path) -> None:
    store = bucket(s3, "transfer-changed")
    old = next(stored for stored in store.list("net") if stored.name == "data")
    part = PartialFile(tmp_path / "out/data", old)
    part.begin()
    part.bytes_path.write_bytes(BODY)
    for span in part.missing_ranges()[:6]:
        part.mark_done(span)
    fresh = BODY[::-1]
    s3.client().put_object(Bucket="transfer-changed", Key="net/data", Body=fresh)
    s3.faults()
    fetch_prefix(store, "net", tmp_path / "out")
    assert s3.counts()["GET"] == 1 + 12 + 1
    assert files_in(tmp_path / "out") == {"data": fresh, "index": b"small"}


def test_an_object_that_changes_half_way_is_noticed(s3: Any, tmp_path: Path) -> None:
    store = bucket(s3, "transfer-changing")
    stored = next(stored for stored in store.list("net") if stored.name == "data")
    asked = list[int]()

    class Changing(S3Store):
        def read(self, stored: StoredObject, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
            asked.append(begin)
            if len(asked) == 4:
                s3.client().put_object(Bucket="transfer-changing", Key="net/data", Body=BODY[::-1])
            return super().read(stored, begin, end)

    changing = Changing("transfer-changing", s3.url)
    with pytest.raises(RunFailed, match="s3://transfer-changing/net/data: changed while it was fetched; the same") as e:
        fetch_objects(changing, [stored], tmp_path / "out", what="test", workers=1)
    assert "tried" not in str(e.value)
    assert len(asked) < 8
    assert PartialFile(tmp_path / "out/data", stored).bytes_done() == 3 * RANGE
    fetch_prefix(store, "net", tmp_path / "out")
    assert files_in(tmp_path / "out") == {"data": BODY[::-1], "index": b"small"}


def test_multipart_uploads_are_verified(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_TRIES", 50)
    monkeypatch.setattr(resumable, "RANGE_BYTES", MIB)
    s3.public_bucket("transfer-parts", {})
    client, names = s3.client(), {"Bucket": "transfer-parts", "Key": "net/data"}
    bodies = [os.urandom(5 * MIB + 999), os.urandom(2 * MIB)]
    upload = client.create_multipart_upload(**names)["UploadId"]
    parts = [
        {"PartNumber": n, "ETag": client.upload_part(**names, UploadId=upload, PartNumber=n, Body=body)["ETag"]}
        for n, body in enumerate(bodies, start=1)
    ]
    client.complete_multipart_upload(**names, UploadId=upload, MultipartUpload={"Parts": parts})
    store = S3Store("transfer-parts", s3.url)
    (stored,) = store.list("net")
    assert stored.etag.endswith("-2")
    part = PartialFile(tmp_path / "out/data", stored)
    part.begin()
    part.mark_done((MIB, 2 * MIB))  # a lie, which the checksum must find
    s3.faults(truncate=0.3, methods=["GET"])
    fetched = fetch_prefix(store, "net", tmp_path / "out")
    assert (fetched.transferred, fetched.by_size) == (1, 0)
    assert files_in(tmp_path / "out") == {"data": b"".join(bodies)}


KILLED = """
    import sys
    from pathlib import Path
    from emsuite.download import resumable
    from emsuite.download.fetch import fetch_prefix
    from emsuite.download.object_store import S3Store

    resumable.LARGE_OBJECT_BYTES, resumable.RANGE_BYTES = 2 * {range}, {range}
    fetch_prefix(S3Store("transfer-killed", "{url}"), "net", Path("out"), workers=2)
"""


def test_killed_and_restarted_fetches_only_the_missing_ranges(s3: Any, tmp_path: Path) -> None:
    store = bucket(s3, "transfer-killed")
    stored = next(stored for stored in store.list("net") if stored.name == "data")
    part = PartialFile(tmp_path / "out/data", stored)
    s3.faults(bytes_per_s=4 * RANGE)
    script = textwrap.dedent(KILLED.format(range=RANGE, url=s3.url))
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + 60
    while part.bytes_done() < 4 * RANGE:
        assert process.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out/data").exists()
    assert not manifest_path(tmp_path / "out").exists()
    missing = part.missing_ranges()
    assert 0 < len(missing) <= 8
    held = part.bytes_path.read_bytes()
    for begin in set(range(0, SIZE, RANGE)) - {begin for begin, _ in missing}:
        assert held[begin : begin + RANGE] == BODY[begin : begin + RANGE]
    s3.faults()
    small = int(not (tmp_path / "out/index").exists())
    fetch_prefix(store, "net", tmp_path / "out")
    assert s3.counts() == {"GET": 1 + small + len(missing)}
    assert files_in(tmp_path / "out") == {"data": BODY, "index": b"small"}


MEASURED = """
    import resource
    from pathlib import Path
    from emsuite.download.fetch import fetch_prefix
    from emsuite.download.object_store import FolderStore

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

    before = peak()
    assert fetch_prefix(FolderStore(Path("lab")), "net", Path("out"), workers=4).by_size == 0
    print(peak() - before)
"""


def test_memory_does_not_grow_with_the_object(tmp_path: Path) -> None:
    lab(tmp_path)
    os.truncate(tmp_path / "lab/net/data", 200 * MIB)
    script = [sys.executable, "-c", textwrap.dedent(MEASURED)]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50
    assert (tmp_path / "out/data").stat().st_size == 200 * MIB
