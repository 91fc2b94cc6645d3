"""Object stores that data sets are fetched from: a public S3 bucket, or a folder.

A store lists the objects below a prefix, with sizes and checksums, and reads an object piece by piece. Reading raises
`TransientError` for failures that may pass (throttling, a broken connection), BadInput or RunFailed for others.

The checksums are S3's ETags, see https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html:

    0123456789abcdef0123456789abcdef        an object uploaded at once: the MD5 of its bytes
    0123456789abcdef0123456789abcdef-12     a multipart upload of 12 parts: the MD5 of the MD5s of the parts

An ETag does not tell the size of the parts. All parts but the last are of the same size, and programs use few sizes.
"""

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from emsuite.common.errors import BadInput, EmsuiteError, RunFailed
from emsuite.common.outputs import check_finished
from emsuite.download.retry import TransientError, Unreachable, with_retries

_MIB = 1 << 20
_PIECE_BYTES = _MIB
_CONNECT_SECONDS = 10
_READ_SECONDS = 60
_TRIES_TO_REACH = 3
_TRANSIENT_CODES = {
    "SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "Throttling", "RequestTimeTooSkewed"
}  # fmt: skip
_ETAG = re.compile(r"([0-9a-f]{32})(?:-(\d+))?")
_COMMON_PART_SIZES = tuple(n * _MIB for n in (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 256, 512, 1024))

Result = TypeVar("Result")


@dataclass(frozen=True)
class StoredObject:
    """An object: its key, its `name` below the listed prefix, its size in bytes and its ETag."""

    key: str
    name: str
    size: int
    etag: str


class ObjectStore(Protocol):
    """The questions that `emsuite.download.fetch` asks a store."""

    def url(self, prefix: str) -> str:
        """Return the URL of `prefix`, for messages and provenance."""

    def list(self, prefix: str) -> list[StoredObject]:
        """Return all objects below the folder `prefix`; raise BadInput if there are none."""

    def read(self, stored: StoredObject, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes of the object from `begin` up to `end`; raise RunFailed if the object changed."""

    def part_size(self, stored: StoredObject) -> int | None:
        """Return the bytes of the first part of a multipart upload, or None if the store cannot tell."""


class S3Store:
    """A public bucket, read without credentials; at most `connections` objects are read at once."""

    def __init__(self, bucket: str, endpoint_url: str | None = None, connections: int = 16):
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        self.bucket = bucket
        # Other endpoints than Amazon's are often hosts such as localhost: bucket.localhost does not resolve.
        style = {"addressing_style": "path"} if endpoint_url else {}
        settings = Config(
            signature_version=UNSIGNED,
            max_pool_connections=connections,
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"total_max_attempts": 1},  # the only retries are `with_retries`: it notices truncated bodies too
            s3=style,
        )
        try:
            self._client = boto3.client("s3", endpoint_url=endpoint_url, region_name="us-east-1", config=settings)
        except (ValueError, BotoCoreError) as error:
            raise BadInput(f"S3 endpoint {endpoint_url or 'of AWS'}: {error}") from None

    def url(self, prefix: str) -> str:
        """Return `s3://bucket/prefix`."""
        return f"s3://{self.bucket}/{prefix}"

    def list(self, prefix: str) -> list[StoredObject]:
        """See `ObjectStore.list`. Reads all pages of the listing."""
        folder = prefix.rstrip("/") + "/"
        objects: list[StoredObject] = []
        request = {"Bucket": self.bucket, "Prefix": folder}
        while True:
            page = self._request_with_retries(prefix, lambda: self._client.list_objects_v2(**request))
            for item in page.get("Contents", []):
                key, size = item["Key"], item["Size"]
                # Consoles mark "folders" with an empty object; it is no file.
                if not (key.endswith("/") and size == 0):
                    objects.append(StoredObject(key, key.removeprefix(folder), size, item["ETag"].strip('"')))
            if not page.get("IsTruncated"):
                break
            request["ContinuationToken"] = page["NextContinuationToken"]
        if not objects:
            raise BadInput(f"{self.url(prefix)}: holds no objects; expected a folder of the bucket")
        return objects

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
        return StoredObject(key, key, int(response["ContentRange"].rpartition("/")[2]), response["ETag"].strip('"'))

    def read(self, stored: StoredObject, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See `ObjectStore.read`. Raises TransientError if the body ends early."""
        request = {"Bucket": self.bucket, "Key": stored.key}
        if stored.etag:
            request["IfMatch"] = f'"{stored.etag}"'
        last = (stored.size if end is None else end) - 1
        ranged = begin > 0 or last < stored.size - 1
        if ranged:
            request["Range"] = f"bytes={begin}-{last}"
        response = self._request(stored.key, lambda: self._client.get_object(**request))
        body = response["Body"]
        with body:  # not "as body": that would be the raw stream, which does not notice that it ends early
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
        except exceptions.ConnectionError:
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
        if code in _TRANSIENT_CODES or status >= 500 or status == 429:
            return TransientError(f"{where}: {status} {code}")
        if status == 412:
            return _changed(where)
        if code == "NoSuchBucket":
            return BadInput(f"{where}: there is no bucket '{self.bucket}'")
        if status == 403:
            return BadInput(f"{where}: access refused (403); expected a bucket that anyone may list and read")
        message = response.get("Error", {}).get("Message", "")
        return RunFailed(f"{where}: {status} {code}: {message}")


class FolderStore:
    """A folder on this machine or its network; the checksums of its files are their MD5s."""

    def __init__(self, root: Path, connections: int = 16):
        self.root = Path(root)
        self._connections = connections

    def url(self, prefix: str) -> str:
        """Return `file:///root/prefix`."""
        return (self.root / prefix).resolve().as_uri()

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


def md5(content: bytes = b"") -> Any:
    """Return an MD5 hash that is marked as a checksum: some machines refuse MD5 for security."""
    return hashlib.md5(content, usedforsecurity=False)


def is_multipart(etag: str) -> bool:
    """Return whether this is the ETag of a multipart upload."""
    match = _ETAG.fullmatch(etag)
    return bool(match and match.group(2))


def matches_etag(path: Path, etag: str, part_size: int | None = None) -> bool | None:
    """Return whether the file at `path` has this ETag.

    Args:
        path: the file.
        etag: the ETag, without quotes.
        part_size: the bytes of the first part of a multipart upload, or None to try common sizes.

    Returns:
        None if the answer is unknown: the ETag is no MD5, or none of the part sizes that are tried gives it.
    """
    match = _ETAG.fullmatch(etag)
    if match is None:
        return None
    if not match.group(2):
        with open(path, "rb") as file:
            return hashlib.file_digest(file, md5).hexdigest() == etag
    parts, size = int(match.group(2)), path.stat().st_size
    candidates = candidate_part_sizes(size, parts) if part_size is None else [part_size]
    plausible = [n for n in candidates if math.ceil(size / n) == parts]
    if any(_multipart_etag(path, n) == etag for n in plausible):
        return True
    return False if part_size is not None and plausible else None


def candidate_part_sizes(size: int, parts: int) -> list[int]:
    """Return the part sizes with which `size` bytes make `parts` parts: common sizes, then an even split."""
    even = math.ceil(size / parts)
    candidates = [*_COMMON_PART_SIZES, math.ceil(even / _MIB) * _MIB, even]
    return [n for n in dict.fromkeys(candidates) if n and math.ceil(size / n) == parts]


def _multipart_etag(path: Path, part_size: int) -> str:
    digests = []
    with open(path, "rb") as file:
        while True:
            part, remaining = md5(), part_size
            while remaining and (piece := file.read(min(_PIECE_BYTES, remaining))):
                part.update(piece)
                remaining -= len(piece)
            if remaining < part_size:
                digests.append(part.digest())
            if remaining:
                return f"{md5(b''.join(digests)).hexdigest()}-{len(digests)}"
