"""Object stores that data sets are fetched from: a public S3 bucket, or a folder; see `web_store` for single URLs.

A store describes objects, one or all below a prefix, by sizes and checksums, and reads an object piece by piece.
Reading raises `TransientError` for failures that may pass (throttling, a broken connection), BadInput or RunFailed for
others.

The checksums are S3's ETags, see `emsuite.download.etags`. Servers other than Amazon's know fewer requests: a listing
asks for version 2 and takes version 1, and ETags may be missing.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from emsuite.common.errors import BadInput, EmsuiteError, RunFailed
from emsuite.common.outputs import check_finished
from emsuite.download.endpoint import Endpoint, tls_problem
from emsuite.download.etags import clean_etag, md5, same_version
from emsuite.download.retry import TransientError, Unreachable, with_retries

_PIECE_BYTES = 1 << 20
_TRIES_TO_REACH = 3
_TRANSIENT_CODES = {
    "SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "Throttling", "RequestTimeTooSkewed"
}  # fmt: skip

Result = TypeVar("Result")
_Page = list[dict[str, Any]]


@dataclass(frozen=True)
class StoredObject:
    """An object: its key, its `name` below the listed prefix, its size in bytes and its ETag, "" if it has none.

    A `sha256` that is known beforehand decides in the place of the ETag. Not all servers give ranges of bytes.
    """

    key: str
    name: str
    size: int
    etag: str
    sha256: str = ""
    has_ranges: bool = True


class FileStore(Protocol):
    """The questions that `emsuite.download.fetch_file` asks a store."""

    def url(self, prefix: str) -> str:
        """Return the URL of `prefix`, for messages and provenance."""

    def describe(self, key: str) -> StoredObject:
        """Return the object with this key, under its whole key as its name; raise BadInput if there is none."""

    def read(self, stored: StoredObject, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes of the object from `begin` up to `end`; raise RunFailed if the object changed."""

    def part_size(self, stored: StoredObject) -> int | None:
        """Return the bytes of the first part of a multipart upload, or None if the store cannot tell."""

    def is_encrypted(self, stored: StoredObject) -> bool:
        """Return whether the store holds the object under a key, so that its ETag looks like an MD5 but is none."""


class ObjectStore(FileStore, Protocol):
    """The questions that `emsuite.download.fetch` asks a store."""

    def list(self, prefix: str) -> list[StoredObject]:
        """Return all objects below the folder `prefix`; raise BadInput if there are none."""


class S3Store:
    """A public bucket, read without credentials; at most `connections` objects are read at once."""

    def __init__(self, bucket: str, endpoint: Endpoint | str | None = None, connections: int = 16):
        self.bucket = bucket
        self._client = (endpoint if isinstance(endpoint, Endpoint) else Endpoint(endpoint)).client(connections)

    def url(self, prefix: str) -> str:
        """Return `s3://bucket/prefix`."""
        return f"s3://{self.bucket}/{prefix}"

    def list(self, prefix: str) -> list[StoredObject]:
        """See `ObjectStore.list`. Reads all pages of the listing."""
        folder = prefix.rstrip("/") + "/"
        objects: dict[str, StoredObject] = {}
        for page in self._pages(prefix, folder):
            for item in page:
                key, size = item["Key"], item["Size"]
                # Consoles mark "folders" with an empty object; it is no file.
                if not (key.endswith("/") and size == 0):
                    name = key.removeprefix(folder)
                    objects[key] = StoredObject(key, name, size, clean_etag(item.get("ETag")))
        if not objects:
            raise BadInput(f"{self.url(prefix)}: holds no objects; expected a folder of the bucket")
        return [*objects.values()]

    def _pages(self, prefix: str, folder: str) -> Iterator[_Page]:
        """Yield the pages of a listing. An endpoint without version 2 refuses it, or answers as in version 1."""
        ask, more, last = self._client.list_objects_v2, dict[str, str](), ""
        while True:
            request = {"Bucket": self.bucket, "Prefix": folder, **more}
            try:
                page: dict[str, Any] = self._request_with_retries(prefix, partial(ask, **request))
            except _Refused:
                if ask == self._client.list_objects or more:
                    raise
                ask = self._client.list_objects
                continue
            items, before = page.get("Contents", []), more
            yield items
            if not page.get("IsTruncated"):
                return
            if token := page.get("NextContinuationToken"):
                more = {"ContinuationToken": token}
            else:
                ask, more = self._client.list_objects, {"Marker": page.get("NextMarker") or _last_key(items)}
            if more == before or (items and _last_key(items) == last):
                raise RunFailed(f"{self.url(prefix)}: the endpoint lists the same objects again and again")
            last = _last_key(items) or last

    def describe(self, key: str) -> StoredObject:
        """Return the object with this key, of at least one byte, with the whole key as its name.

        Needs only the permission to read the object. Raises BadInput if there is no such object.
        """
        request = {"Bucket": self.bucket, "Key": key, "Range": "bytes=0-0"}
        try:
            response = self._request_with_retries(key, lambda: self._client.get_object(**request))
        except RunFailed as error:
            if "NoSuchKey" not in str(error):
                raise
            raise BadInput(f"{self.url(key)}: there is no such object") from None
        response["Body"].close()
        whole = str(response.get("ContentRange", "")).rpartition("/")[2]
        size = int(whole) if whole.isdigit() else int(response["ContentLength"])  # not all endpoints know ranges
        return StoredObject(key, key, size, clean_etag(response.get("ETag")))

    def read(self, stored: StoredObject, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See `ObjectStore.read`. Raises TransientError if the body ends early."""
        request = {"Bucket": self.bucket, "Key": stored.key}
        last = (stored.size if end is None else end) - 1
        ranged = begin > 0 or last < stored.size - 1
        if ranged:
            request["Range"] = f"bytes={begin}-{last}"
        response = self._request(stored.key, lambda: self._client.get_object(**request))
        body = response["Body"]
        with body:  # not "as body": that would be the raw stream, which does not notice that it ends early
            # not by the header If-Match, which a weak ETag never fulfils and other endpoints refuse
            if not same_version(stored.etag, clean_etag(response.get("ETag"))):
                raise _changed(self.url(stored.key))
            if ranged and not str(response.get("ContentRange")).startswith(f"bytes {begin}-{last}/"):
                sent = response.get("ContentRange", "all of it")
                raise RunFailed(f"{self.url(stored.key)}: asked for bytes {begin}-{last}, the endpoint gave {sent}")
            while piece := self._request(stored.key, lambda: body.read(_PIECE_BYTES)):
                yield piece

    def part_size(self, stored: StoredObject) -> int | None:
        """See `ObjectStore.part_size`. Not all endpoints tell it."""
        request = {"Bucket": self.bucket, "Key": stored.key, "PartNumber": 1}
        try:
            response = self._request_with_retries(stored.key, lambda: self._client.head_object(**request))
        except EmsuiteError:
            return None
        return response["ContentLength"] if response.get("PartsCount", 1) > 1 else None

    def is_encrypted(self, stored: StoredObject) -> bool:
        """See `ObjectStore.is_encrypted`. With keys of S3 itself (AES256) ETags are MD5s."""
        request = {"Bucket": self.bucket, "Key": stored.key}
        try:
            response = self._request_with_retries(stored.key, lambda: self._client.head_object(**request))
        except EmsuiteError:
            return False
        return response.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in response

    def _request_with_retries(self, key: str, call: Callable[[], Result]) -> Result:
        return with_retries(lambda: self._request(key, call), tries_to_reach=_TRIES_TO_REACH)

    def _request(self, key: str, call: Callable[[], Result]) -> Result:
        """Return the result of `call`; turn the errors of the client into the suite's own."""
        from botocore import exceptions
        from botocore.parsers import ResponseParserError

        where = self.url(key)
        try:
            return call()
        except exceptions.ClientError as error:
            raise self._error_of(where, error.response) from None
        except exceptions.ConnectionError as error:
            if problem := tls_problem(error):
                raise BadInput(f"{where}: {self._client.meta.endpoint_url}: {problem}") from None
            raise Unreachable(f"{where}: no connection to {self._client.meta.endpoint_url}") from None
        except (
            exceptions.HTTPClientError,
            exceptions.IncompleteReadError,
            exceptions.FlexibleChecksumError,
            ResponseParserError,
            ConnectionError,
            TimeoutError,
        ) as error:
            raise TransientError(f"{where}: {error}") from None
        except exceptions.BotoCoreError as error:
            raise BadInput(f"{where}: {error}") from None

    def _error_of(self, where: str, response: dict[str, Any]) -> Exception:
        code = str(response.get("Error", {}).get("Code", "unknown"))
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _TRANSIENT_CODES or (status >= 500 and status != 501) or status == 429:
            return TransientError(f"{where}: {status} {code}")
        if code == "NoSuchBucket":
            return BadInput(f"{where}: there is no bucket '{self.bucket}'")
        if status == 403:
            return BadInput(f"{where}: access refused (403); expected a bucket that anyone may list and read")
        message = response.get("Error", {}).get("Message", "")
        return _Refused(f"{where}: {status} {code}: {message}")


class _Refused(RunFailed):
    """The endpoint does not do what it was asked for."""


def _last_key(items: _Page) -> str:
    return str(items[-1]["Key"]) if items else ""


class FolderStore:
    """A folder on this machine or its network; the checksums of its files are their MD5s."""

    def __init__(self, root: Path, connections: int = 16):
        self.root = Path(root)
        self._connections = connections

    def url(self, prefix: str) -> str:
        """Return `file:///root/prefix`."""
        return (self.root / prefix).resolve().as_uri()

    def describe(self, key: str) -> StoredObject:
        """See `FileStore.describe`. Reads the file once; raises BadInput for an unfinished output."""
        file = self.root / key
        if not file.is_file():
            raise BadInput(f"{file}: no such file")
        check_finished(file)
        return self._describe(file, self.root)

    def list(self, prefix: str) -> list[StoredObject]:
        """See `ObjectStore.list`. Reads each file once for its checksum; raises BadInput for an unfinished output."""
        folder = self.root / prefix
        if not folder.is_dir():
            raise BadInput(f"{folder}: no such folder")
        check_finished(folder)
        files = []
        for parent, folder_names, file_names in os.walk(folder):
            for path in (Path(parent) / name for name in folder_names):
                if path.is_symlink():
                    raise BadInput(f"{path}: is a link to another folder; expected the files themselves")
            files += [Path(parent) / name for name in file_names]
        if not files:
            raise BadInput(f"{folder}: holds no files")
        with ThreadPoolExecutor(self._connections) as pool:
            return list(pool.map(lambda file: self._describe(file, folder), sorted(files)))

    def read(self, stored: StoredObject, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See `ObjectStore.read`."""
        remaining = (stored.size if end is None else end) - begin
        try:
            with open(self.root / stored.key, "rb") as file:
                if os.fstat(file.fileno()).st_size != stored.size:
                    raise _changed(self.url(stored.key))
                file.seek(begin)
                while piece := file.read(min(_PIECE_BYTES, remaining)):
                    yield piece
                    remaining -= len(piece)
        except OSError as error:
            raise _unreadable(self.root / stored.key, error) from None

    def part_size(self, stored: StoredObject) -> int | None:
        """Return None: files have no parts."""
        return None

    def is_encrypted(self, stored: StoredObject) -> bool:
        """Return False."""
        return False

    def _describe(self, file: Path, folder: Path) -> StoredObject:
        try:
            with open(file, "rb") as content:
                etag = hashlib.file_digest(content, md5).hexdigest()
            key, name = file.relative_to(self.root).as_posix(), file.relative_to(folder).as_posix()
            return StoredObject(key, name, file.stat().st_size, etag)
        except OSError as error:
            raise _unreadable(file, error) from None


def _unreadable(file: Path, error: OSError) -> EmsuiteError:
    return RunFailed(f"{file}: cannot be read: {error.strerror}")


def _changed(where: str) -> EmsuiteError:
    return RunFailed(f"{where}: changed while it was fetched; the same command begins with what it is now")
