import errno
import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from builders import files_in
from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.outputs import check_finished, manifest_path, unfinished_path
from emsuite.download import fetch, resumable, retry
from emsuite.download.fetch import FetchResult, fetch_objects, fetch_prefix, local_paths
from emsuite.download.object_store import FolderStore, S3Store, StoredObject
from emsuite.download.resumable import PartialFile

MIB = 1 << 20
pytestmark = pytest.mark.usefixtures("short_delays")


def bodies(number: int, size: int = 3000) -> dict[str, bytes]:
    return {f"raw/{i}": hashlib.sha256(str(i).encode()).digest() * (size // 32) for i in range(number)}


def bucket(s3: Any, name: str, content: dict[str, bytes]) -> S3Store:
    s3.public_bucket(name, {f"some/v.zarr/{key}": body for key, body in content.items()})
    return S3Store(name, s3.url)


def numbers(fetched: FetchResult) -> tuple[int, int, int]:
    return fetched.objects, fetched.transferred, fetched.by_size


def put_in_parts(client: Any, bucket: str, key: str, bodies: list[bytes]) -> None:
    names = {"Bucket": bucket, "Key": key}
    upload = client.create_multipart_upload(**names)["UploadId"]
    parts = []
    for number, body in enumerate(bodies, start=1):
        done = client.upload_part(**names, UploadId=upload, PartNumber=number, Body=body)
        parts.append({"PartNumber": number, "ETag": done["ETag"]})
    client.complete_multipart_upload(**names, UploadId=upload, MultipartUpload={"Parts": parts})


class Held:
    """A store in memory that counts what is read; `fails` is raised in the middle of each body."""

    def __init__(self, content: dict[str, bytes], fails: Exception | None = None):
        self.content, self.fails, self.read_keys = content, fails, list[str]()

    def url(self, prefix: str) -> str:
        return f"held://{prefix}"

    def list(self, prefix: str) -> list[StoredObject]:
        return [
            StoredObject(f"{prefix}/{name}", name, len(body), hashlib.md5(body).hexdigest())
            for name, body in self.content.items()
        ]

    def read(self, stored: StoredObject, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
        self.read_keys.append(stored.name)
        yield self.content[stored.name][begin:end][:1]
        if self.fails:
            raise self.fails
        yield self.content[stored.name][begin:end][1:]

    def part_size(self, stored: StoredObject) -> int | None:
        return None

    def is_encrypted(self, stored: StoredObject) -> bool:
        return False


def test_copies_all_and_leaves_a_manifest(s3: Any, tmp_path: Path) -> None:
    content = bodies(20) | {".zgroup": b"{}", "empty": b""}
    folder = tmp_path / "v.zarr"
    assert numbers(fetch_prefix(bucket(s3, "fetch-all", content), "some/v.zarr", folder)) == (22, 22, 0)
    assert files_in(folder) == content
    manifest = json.loads(manifest_path(folder).read_text())
    assert manifest["settings"] == {"source": "s3://fetch-all/some/v.zarr"}
    assert manifest["contents"]["objects"] == 22
    assert manifest["contents"]["bytes"] == sum(map(len, content.values()))
    assert manifest["verified_by_size_only"] == 0
    assert not unfinished_path(folder).exists()


def test_faults_of_all_kinds_are_overcome(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_TRIES", 50)  # with nine, one such run in thirty would fail by chance
    content = bodies(60)
    store = bucket(s3, "fetch-faults", content)
    s3.faults(slowdown=0.2, error=0.1, truncate=0.2)
    fetch_prefix(store, "some/v.zarr", tmp_path / "v.zarr")
    counts = s3.counts()
    assert {"503", "500", "truncated"} <= set(counts)
    assert files_in(tmp_path / "v.zarr") == content


def test_throttling_at_first_is_overcome(s3: Any, tmp_path: Path) -> None:
    content = bodies(10)
    store = bucket(s3, "fetch-throttled", content)
    s3.faults(first=8, prefix="/fetch-throttled/some/")
    fetch_prefix(store, "some/v.zarr", tmp_path / "v.zarr")
    assert s3.counts()["503"] == 8
    assert files_in(tmp_path / "v.zarr") == content


def test_a_failed_fetch_leaves_nothing_that_looks_complete(s3: Any, tmp_path: Path) -> None:
    content = bodies(8)
    store = bucket(s3, "fetch-broken", content)
    folder = tmp_path / "v.zarr"
    s3.faults(truncate=1.0, prefix="/fetch-broken/some/v.zarr/raw/3")
    with pytest.raises(RunFailed, match=r"s3://fetch-broken/some/v.zarr/raw/3: .*tried 9 times"):
        fetch_prefix(store, "some/v.zarr", folder)
    assert unfinished_path(folder).exists()
    assert not manifest_path(folder).exists()
    with pytest.raises(BadInput, match="unfinished"):
        check_finished(folder / "raw")
    assert "raw/3" not in files_in(folder)
    assert files_in(folder).items() <= content.items()
    s3.faults()
    there = len(files_in(folder))
    assert numbers(fetch_prefix(store, "some/v.zarr", folder)) == (8, 8 - there, 0)
    assert files_in(folder) == content


def test_only_missing_or_damaged_files_are_fetched_again(tmp_path: Path) -> None:
    store, folder = Held(bodies(6)), tmp_path / "v"
    fetch_prefix(store, "v", folder)
    (folder / "raw/1").unlink()
    damaged = bytearray((folder / "raw/2").read_bytes())
    damaged[100] ^= 1
    (folder / "raw/2").write_bytes(damaged)
    (folder / "raw/3").write_bytes(b"short")
    (folder / "mask").write_bytes(b"made later, by another stage")
    store.read_keys.clear()
    assert numbers(fetch_prefix(store, "v", folder)) == (6, 3, 0)
    assert sorted(store.read_keys) == ["raw/1", "raw/2", "raw/3"]
    assert files_in(folder) == store.content | {"mask": b"made later, by another stage"}
    check_finished(folder)
    # a user may have edited them
    assert files_in(tmp_path / "v.before1") == {"raw/2": bytes(damaged), "raw/3": b"short"}


def test_edited_files_are_kept_if_the_manifest_is_gone(tmp_path: Path) -> None:
    store, folder = Held(bodies(3)), tmp_path / "v"
    fetch_prefix(store, "v", folder)
    manifest_path(folder).unlink()  # as Snakemake does
    (folder / "mask").write_bytes(b"made later, by another stage")
    edited = b"\1" * 3000
    (folder / "raw/1").write_bytes(edited)
    assert numbers(fetch_prefix(store, "v", folder)) == (3, 1, 0)
    assert files_in(tmp_path / "v.before1") == {"raw/1": edited}
    assert files_in(folder) == store.content | {"mask": b"made later, by another stage"}


def test_a_whole_copy_is_left_as_it_is(tmp_path: Path) -> None:
    store, folder = Held(bodies(6)), tmp_path / "v"
    fetch_prefix(store, "v", folder)
    before = manifest_path(folder).stat().st_mtime_ns
    store.read_keys.clear()
    assert numbers(fetch_prefix(store, "v", folder)) == (6, 0, 0)
    assert store.read_keys == []
    assert manifest_path(folder).stat().st_mtime_ns == before


def test_a_copy_by_another_program_is_continued(tmp_path: Path) -> None:
    store, folder = Held(bodies(6)), tmp_path / "v"
    (folder / "raw").mkdir(parents=True)
    (folder / "raw/1").write_bytes(store.content["raw/1"])
    (folder / "raw/2").write_bytes(b"half")
    assert numbers(fetch_prefix(store, "v", folder)) == (6, 5, 0)
    assert files_in(folder) == store.content


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    store, folder = Held(bodies(6)), tmp_path / "v"
    (folder / "raw").mkdir(parents=True)
    (folder / "raw/1").write_bytes(b"mine")
    (folder / "notes").write_bytes(b"mine too")
    with pytest.raises(BadInput, match=r"holds something else \(the source has no notes\)"):
        fetch_prefix(store, "v", folder)
    assert files_in(folder) == {"raw/1": b"mine", "notes": b"mine too"}


def test_a_copy_of_another_source_is_refused(tmp_path: Path) -> None:
    fetch_prefix(Held(bodies(2)), "v", tmp_path / "v")
    with pytest.raises(BadInput, match="was made from held://v, not from held://w"):
        fetch_prefix(Held(bodies(2)), "w", tmp_path / "v")


def test_an_unfinished_copy_of_another_source_is_set_aside(tmp_path: Path) -> None:
    with pytest.raises(RunFailed):
        fetch_prefix(Held({"a": b"12", "b": b"34"}, fails=RunFailed("gone")), "v", tmp_path / "v")
    (tmp_path / "v").mkdir(exist_ok=True)
    (tmp_path / "v/b").write_bytes(b"34")
    fetch_prefix(Held({"a": b"56"}), "w", tmp_path / "v")
    assert files_in(tmp_path / "v") == {"a": b"56"}
    assert files_in(tmp_path / "v.before1") == {"b": b"34"}


def test_temporary_files_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / "v/raw").mkdir(parents=True)
    (tmp_path / "v/raw/.0.1234abcd.part").write_bytes(b"half")
    store = Held(bodies(3))
    fetch_prefix(store, "v", tmp_path / "v")
    assert files_in(tmp_path / "v") == store.content


def test_partial_files_of_large_objects_are_kept_if_they_can_be_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable, "LARGE_OBJECT_BYTES", 1000)
    store = Held(bodies(3))
    listed = store.list("v")
    chosen, other, gone = (PartialFile(tmp_path / "v" / stored.name, stored) for stored in listed)
    stale = PartialFile(tmp_path / "v/raw/1", replace(listed[1], etag="1" * 32))
    for part in (chosen, other, gone, stale):
        part.begin()
    gone.ranges_path.unlink()
    fetch_prefix(store, "v", tmp_path / "v", choose=lambda listed: listed[:1])
    kept = {path.relative_to(tmp_path / "v").as_posix() for path in (other.bytes_path, other.ranges_path)}
    assert set(files_in(tmp_path / "v")) == kept | {"raw/0"}
    manifest_path(tmp_path / "v").unlink()
    fetch_prefix(store, "v", tmp_path / "v")
    assert files_in(tmp_path / "v") == store.content


def test_a_selection_of_objects_is_fetched(tmp_path: Path) -> None:
    store, folder = (
        Held({f"net_{n}.{kind}": bytes([n]) * 9 for n in (1, 2) for kind in ("index", "data")}),
        tmp_path / "v",
    )

    def iteration(number: int) -> fetch.Selection:
        return lambda listed: [stored for stored in listed if stored.name.startswith(f"net_{number}.")]

    first = fetch_prefix(store, "v", folder, choose=iteration(1))
    assert numbers(first) == (2, 2, 0)
    assert first.stored == tuple(iteration(1)(store.list("v")))
    assert set(files_in(folder)) == {"net_1.index", "net_1.data"}
    manifest = json.loads(manifest_path(folder).read_text())
    assert (manifest["settings"], manifest["contents"]["objects"]) == ({"source": "held://v"}, 2)
    store.read_keys.clear()
    second = fetch_prefix(store, "v", folder, choose=iteration(2))
    assert numbers(second) == (2, 2, 0)
    assert sorted(store.read_keys) == ["net_2.data", "net_2.index"]
    assert files_in(folder) == store.content
    store.read_keys.clear()
    for number in (2, 1, 1):
        again = fetch_prefix(store, "v", folder, choose=iteration(number))
        assert numbers(again) == (2, 0, 0)
        assert again.stored == tuple(iteration(number)(store.list("v")))
        # the manifest tells of what was verified last
        contents = json.loads(manifest_path(folder).read_text())["contents"]
        fetch_prefix(store, "v", folder, choose=iteration(number), expected=contents)
    assert store.read_keys == []
    check_finished(folder)


def test_an_empty_selection_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="held://v: holds 2 objects, but none of those asked for"):
        fetch_prefix(Held(bodies(2)), "v", tmp_path / "v", choose=lambda listed: [])
    assert list(tmp_path.iterdir()) == []


def test_other_objects_of_the_source_do_not_count_as_something_else(tmp_path: Path) -> None:
    store, folder = Held(bodies(3)), tmp_path / "v"
    (folder / "raw").mkdir(parents=True)
    (folder / "raw/0").write_bytes(b"half")
    (folder / "raw/1").write_bytes(store.content["raw/1"])
    fetched = fetch_prefix(store, "v", folder, choose=lambda listed: listed[:1])
    assert numbers(fetched) == (1, 1, 0)
    assert files_in(folder) == {name: store.content[name] for name in ("raw/0", "raw/1")}


@pytest.mark.slow
def test_selection_from_a_listing_of_several_pages(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.public_bucket("fetch-choice", {})
    client = s3.client()

    def put(number: int) -> None:
        key = f"net/train_net_checkpoint_{number:04}.index"
        client.put_object(Bucket="fetch-choice", Key=key, Body=b"%d" % number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(1005)))
    monkeypatch.setattr(retry, "_TRIES", 50)
    s3.faults(slowdown=0.2, truncate=0.2)
    store = S3Store("fetch-choice", s3.url)
    fetched = fetch_prefix(store, "net", tmp_path / "v", choose=lambda listed: listed[-1:])
    assert [stored.name for stored in fetched.stored] == ["train_net_checkpoint_1004.index"]
    assert files_in(tmp_path / "v") == {"train_net_checkpoint_1004.index": b"1004"}
    s3.faults()
    assert fetch_prefix(store, "net", tmp_path / "v", choose=lambda listed: listed[-1:]).transferred == 0
    assert s3.counts() == {"GET": 2}


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/out", "a//out", "a\\..\\out", "./out", "a\nb", ".."])
def test_keys_cannot_escape(tmp_path: Path, name: str) -> None:
    store = Held({"fine": b"1", name: b"evil"})
    with pytest.raises(BadInput, match="is no path inside"):
        fetch_prefix(store, "v", tmp_path / "in/v")
    assert store.read_keys == []
    assert list(tmp_path.rglob("*")) == []


def test_keys_of_a_bucket_cannot_escape(s3: Any, tmp_path: Path) -> None:
    store = bucket(s3, "fetch-escape", {"fine": b"1", "../../../../out": b"evil"})
    with pytest.raises(BadInput, match="is no path inside"):
        fetch_prefix(store, "some/v.zarr", tmp_path / "in/v.zarr")
    assert list(tmp_path.rglob("*")) == []


def test_links_cannot_lead_out(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "v").mkdir()
    (tmp_path / "v/raw").symlink_to(tmp_path / "outside")
    with pytest.raises(BadInput, match="leads outside"):
        fetch_prefix(Held({"raw/0": b"evil"}), "v", tmp_path / "v")
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_link_at_the_path_of_a_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"1")
    (tmp_path / "v").mkdir()
    (tmp_path / "v/a").symlink_to(tmp_path / "outside")
    fetch_prefix(Held({"a": b"2"}), "v", tmp_path / "v")
    assert (tmp_path / "outside").read_bytes() == b"1"
    assert (tmp_path / "v/a").read_bytes() == b"2"
    assert not (tmp_path / "v/a").is_symlink()


def test_a_link_at_the_path_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "v").symlink_to(tmp_path / "shared")
    with pytest.raises(BadInput, match="is a link or a file"):
        fetch_prefix(Held({"a": b"2"}), "v", tmp_path / "v")


def test_a_data_folder_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "scratch")
    fetch_prefix(Held({"a/b": b"2"}), "v", tmp_path / "data/v")
    assert (tmp_path / "scratch/v/a/b").read_bytes() == b"2"


def test_a_key_that_is_a_file_and_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="a file and a folder at once"):
        local_paths(tmp_path, Held({"a": b"", "a/b": b""}).list("v"))


def test_part_size_of_a_multipart_upload(s3: Any) -> None:
    store = bucket(s3, "fetch-part-size", {})
    put_in_parts(s3.client(), "fetch-part-size", "some/v.zarr/two", [b"a" * (5 * MIB), b"b"])
    (stored,) = store.list("some/v.zarr")
    assert store.part_size(stored) == 5 * MIB


def test_multipart_uploads_are_verified(s3: Any, tmp_path: Path) -> None:
    body = os.urandom(11 * MIB)
    store = bucket(s3, "fetch-parts", {"plain": b"x"})
    # Parts of a size that nobody would guess, but that the endpoint tells.
    odd = 5 * MIB + 12345
    parts = [body[start : start + odd] for start in range(0, len(body), odd)]
    put_in_parts(s3.client(), "fetch-parts", "some/v.zarr/parts", parts)
    folder = tmp_path / "v.zarr"
    assert numbers(fetch_prefix(store, "some/v.zarr", folder)) == (2, 2, 0)
    damaged = bytearray(body)
    damaged[7 * MIB] ^= 1
    (folder / "parts").write_bytes(damaged)
    assert numbers(fetch_prefix(store, "some/v.zarr", folder)) == (2, 1, 0)
    assert (folder / "parts").read_bytes() == body


def test_objects_without_a_checksum_are_verified_by_size_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = Held({"a": b"12", "b": b"34"})
    plain = store.list("v")
    odd = [StoredObject(stored.key, stored.name, stored.size, "unknown") for stored in plain]
    monkeypatch.setattr(store, "list", lambda prefix: odd)
    assert numbers(fetch_prefix(store, "v", tmp_path / "v")) == (2, 2, 2)
    assert "2 objects have no checksum to go by" in caplog.text
    assert json.loads(manifest_path(tmp_path / "v").read_text())["verified_by_size_only"] == 2
    assert numbers(fetch_prefix(store, "v", tmp_path / "v")) == (2, 0, 2)


def test_bodies_shorter_than_announced_fail(tmp_path: Path) -> None:
    announced = StoredObject("v/a", "a", 3, "unknown")
    with pytest.raises(RunFailed, match="held://v/a: 2 bytes came, 3 were announced"):
        fetch_objects(Held({"a": b"12"}), [announced], tmp_path, what="test")
    assert files_in(tmp_path) == {}


def test_content_that_never_matches_its_checksum_fails(tmp_path: Path) -> None:
    store = Held({"a": b"12"})
    (stored,) = store.list("v")
    wrong = StoredObject(stored.key, stored.name, stored.size, "0" * 32)
    with pytest.raises(RunFailed, match="held://v/a: what came differs from its checksum"):
        fetch_objects(store, [wrong], tmp_path, what="test")
    assert files_in(tmp_path) == {}


def test_a_full_disk_fails_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(RunFailed, match=r"v/a: cannot be written: No space left on device"):
        fetch_prefix(Held({"a": b"12"}, fails=full), "v", tmp_path / "v")
    assert files_in(tmp_path / "v") == {}
    assert not manifest_path(tmp_path / "v").exists()
    monkeypatch.setattr(fetch, "disk_usage", lambda path: SimpleNamespace(free=1))
    with pytest.raises(RunFailed, match="are to be fetched, but the disk has"):
        fetch_prefix(Held({"a": b"12"}), "v", tmp_path / "w")


def test_one_failure_ends_all_other_tasks(tmp_path: Path) -> None:
    store = Held(bodies(200), fails=RunFailed("gone"))
    with pytest.raises(RunFailed, match="gone"):
        fetch_prefix(store, "v", tmp_path / "v", workers=2)
    assert len(store.read_keys) < 100


def test_a_source_that_changed_is_noticed(tmp_path: Path) -> None:
    store = Held({"a": b"12"})
    fetch_prefix(store, "v", tmp_path / "v")
    contents = json.loads(manifest_path(tmp_path / "v").read_text())["contents"]
    fetch_prefix(store, "v", tmp_path / "w", expected=contents)
    for key, value in {"objects": 2, "bytes": 3, "listing": "0" * 64}.items():
        with pytest.raises(RunFailed, match=f"{key}: the source holds"):
            fetch_prefix(store, "v", tmp_path / "u", expected=contents | {key: value})


def test_a_shared_folder_is_copied_and_becomes_writable(tmp_path: Path) -> None:
    (tmp_path / "lab/v/raw").mkdir(parents=True)
    (tmp_path / "lab/v/raw/0").write_bytes(b"x" * 5000)
    (tmp_path / "lab/v/raw/0").chmod(0o444)
    (tmp_path / "lab/v/raw").chmod(0o555)
    store = FolderStore(tmp_path / "lab")
    assert numbers(fetch_prefix(store, "v", tmp_path / "own/v")) == (1, 1, 0)
    assert (tmp_path / "own/v/raw/0").stat().st_mode & 0o200
    assert (tmp_path / "own/v/raw").stat().st_mode & 0o200
    assert numbers(fetch_prefix(store, "v", tmp_path / "own/v")) == (1, 0, 0)
    with pytest.raises(BadInput, match="is the source itself"):
        fetch_prefix(store, "v", tmp_path / "lab/v")
