""" """

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from emsuite.common.errors import BadInput, RunFailed
from emsuite.download.object_store import FolderStore, S3Store, StoredObject
from emsuite.download.retry import TransientError

pytestmark = pytest.mark.usefixtures("short_delays")


@pytest.mark.slow
def test_listing_goes_through_all_pages_and_faults(s3: Any) -> None:
    s3.public_bucket("store-pages", {})
    client = s3.client()
    names = [f"c/{number}" for number in range(1003)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: client.put_object(Bucket="store-pages", Key=f"f/{name}", Body=b"x"), names))
    client.put_object(Bucket="store-pages", Key="f-other/c/0", Body=b"x")
    client.put_object(Bucket="store-pages", Key="f/marker/", Body=b"")
    s3.faults(slowdown=0.3, error=0.2)
    found = S3Store("store-pages", s3.url).list("f")
    assert sorted(stored.name for stored in found) == sorted(names)
    assert {(stored.size, stored.etag) for stored in found} == {(1, hashlib.md5(b"x").hexdigest())}


def test_reading_yields_the_bytes_or_raises_a_transient_error(s3: Any) -> None:
    body = os.urandom(3 << 20)
    s3.public_bucket("store-read", {"f/a": body})
    store = S3Store("store-read", s3.url)
    (stored,) = store.list("f")
    assert b"".join(store.read(stored)) == body
    s3.faults(truncate=1.0)
    with pytest.raises(TransientError):
        list(store.read(stored))
    s3.faults(error=1.0)
    with pytest.raises(TransientError, match="500 InternalError"):
        list(store.read(stored))


def test_reading_byte_ranges(s3: Any, tmp_path: Path) -> None:
    body = os.urandom(3 << 20)
    s3.public_bucket("store-parts", {"f/a": body, "f/empty": b""})
    (tmp_path / "f").mkdir()
    (tmp_path / "f/a").write_bytes(body)
    (tmp_path / "f/empty").write_bytes(b"")
    for store in (S3Store("store-parts", s3.url), FolderStore(tmp_path)):
        found = {stored.name: stored for stored in store.list("f")}
        size = len(body)
        for begin, end in [(0, 1), (0, 1 << 20), (5, 2_000_001), (size - 1, size), (0, size), (1, size)]:
            assert b"".join(store.read(found["a"], begin, end)) == body[begin:end]
        assert b"".join(store.read(found["a"], 7)) == body[7:]
        assert b"".join(store.read(found["empty"])) == b""


def test_a_byte_range_that_ends_early_raises_a_transient_error(s3: Any) -> None:
    s3.public_bucket("store-parts-break", {"f/a": os.urandom(3 << 20)})
    store = S3Store("store-parts-break", s3.url)
    (stored,) = store.list("f")
    s3.faults(truncate=1.0)
    with pytest.raises(TransientError):
        list(store.read(stored, 1 << 20, 2 << 20))


def test_an_endpoint_without_ranges_is_refused(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.public_bucket("store-whole", {"f/a": b"0123456789"})
    store = S3Store("store-whole", s3.url)
    (stored,) = store.list("f")
    get = store._client.get_object
    monkeypatch.setattr(store._client, "get_object", lambda *, Range, **asked: get(**asked))
    with pytest.raises(RunFailed, match="store-whole/f/a: asked for bytes 2-4, the endpoint gave all of it"):
        list(store.read(stored, 2, 5))


@pytest.mark.parametrize("span", [(0, 10), (2, 5)])
def test_an_object_that_changes_is_refused(s3: Any, tmp_path: Path, span: tuple[int, int]) -> None:
    s3.public_bucket("store-change", {"f/a": b"0123456789"})
    bucket = S3Store("store-change", s3.url)
    (stored,) = bucket.list("f")
    s3.client().put_object(Bucket="store-change", Key="f/a", Body=b"abcdefghij")
    with pytest.raises(RunFailed, match="s3://store-change/f/a: changed while it was fetched"):
        list(bucket.read(stored, *span))
    (tmp_path / "f").mkdir()
    (tmp_path / "f/a").write_bytes(b"0123456789")
    folder = FolderStore(tmp_path)
    (stored,) = folder.list("f")
    (tmp_path / "f/a").write_bytes(b"more than that")
    with pytest.raises(RunFailed, match="f/a: changed while it was fetched"):
        list(folder.read(stored, *span))


def test_an_object_that_vanishes_is_refused(s3: Any) -> None:
    s3.public_bucket("store-vanish", {"f/a": b"x"})
    store = S3Store("store-vanish", s3.url)
    (stored,) = store.list("f")
    s3.client().delete_object(Bucket="store-vanish", Key="f/a")
    with pytest.raises(RunFailed, match="404 NoSuchKey"):
        list(store.read(stored))


def test_buckets_that_cannot_be_used(s3: Any) -> None:
    s3.client().create_bucket(Bucket="store-private")
    s3.client().put_object(Bucket="store-private", Key="f/a", Body=b"x")
    s3.public_bucket("store-empty", {})
    with pytest.raises(BadInput, match=r"s3://store-private/f/a: access refused \(403\)"):
        list(S3Store("store-private", s3.url).read(StoredObject("f/a", "a", 1, "")))
    with pytest.raises(BadInput, match="there is no bucket 'store-missing'"):
        S3Store("store-missing", s3.url).list("f")
    with pytest.raises(BadInput, match="s3://store-empty/f: holds no objects"):
        S3Store("store-empty", s3.url).list("f")
    with pytest.raises(BadInput, match="Invalid bucket name"):
        S3Store("no bucket!", s3.url).list("f")


def test_endpoints_that_cannot_be_used() -> None:
    with pytest.raises(RunFailed, match=r"no connection to http://127\.0\.0\.1:9 "):
        S3Store("bucket", "http://127.0.0.1:9").list("f")
    with pytest.raises(BadInput, match="S3 endpoint nonsense"):
        S3Store("bucket", "nonsense")


def test_a_folder_lists_and_reads_its_files(tmp_path: Path) -> None:
    (tmp_path / "f/b").mkdir(parents=True)
    (tmp_path / "f/.zgroup").write_text("{}")
    (tmp_path / "f/b/0.0").write_bytes(b"chunk")
    store = FolderStore(tmp_path)
    found = {stored.name: stored for stored in store.list("f")}
    assert set(found) == {".zgroup", "b/0.0"}
    assert (found["b/0.0"].size, found["b/0.0"].etag) == (5, hashlib.md5(b"chunk").hexdigest())
    assert b"".join(store.read(found["b/0.0"])) == b"chunk"


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    with pytest.raises(BadInput, match="no such folder"):
        store.list("f")
    (tmp_path / "f").mkdir()
    with pytest.raises(BadInput, match="holds no files"):
        store.list("f")
    (tmp_path / "f/link").symlink_to(tmp_path)
    with pytest.raises(BadInput, match="is a link to another folder"):
        store.list("f")
    (tmp_path / "f.unfinished.json").write_text("{}")
    with pytest.raises(BadInput, match="unfinished"):
        store.list("f")
