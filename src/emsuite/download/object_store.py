"""Places that hold objects under keys: an S3 bucket read without credentials, or a folder.

Both list what lies below a prefix, with sizes and checksums, and give an object's bytes in pieces. Reading raises
`Unreliable` for what may pass (throttling, a broken connection), BadInput or RunFailed for what will not.

S3's ETags, checked against files.

An object put in one go has its MD5 as ETag; one put in N parts has the MD5 of the parts' MD5s, then `-N`. The size
of the parts is not said, but all but the last are alike, and uploading programs use few sizes.
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
from emsuite.download.retry import Unreachable, Unreliable, retried

_PIECE = 1 << 20
_CONNECT_SECONDS = 10
_READ_SECONDS = 60
_TRIES_TO_REACH = 3
_PASSING = {"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "Throttling", "RequestTimeTooSkewed"}

Result = TypeVar("Result")


@dataclass(frozen=True)
class StoredObject:
    """An object: its key, its `name` below the prefix that was listed, its size in bytes and its S3 ETag."""

    key: str
    name: str
    size: int
    etag: str


class Store(Protocol):
    """What `emsuite.download.fetch` needs to know of a place."""

    def url(self, prefix: str) -> str:
        """Where `prefix` is, for messages and provenance."""

    def list(self, prefix: str) -> list[StoredObject]:
        """All objects below the folder `prefix`; BadInput where there are none."""

    def read(self, stored: StoredObject, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The object's bytes from `begin` up to `end`, piece by piece; RunFailed where it is no longer the same."""

    def part_size(self, stored: StoredObject) -> int | None:
        """Bytes in the first part of an object that was put in parts; None where that is not known."""


class S3Store:
    """A bucket, read unsigned, as public ones can be; `connections` bounds how many objects are read at once."""

    def __init__(self, bucket: str, endpoint_url: str | None = None, connections: int = 16):
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        self.bucket = bucket
        # Names as bucket.localhost do not resolve, so endpoints of one's own are asked with the bucket in the path.
        style = {"addressing_style": "path"} if endpoint_url else {}
        settings = Config(
            signature_version=UNSIGNED,
            max_pool_connections=connections,
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={
                "total_max_attempts": 1
            },  # emsuite.download.retry has the one loop, which also sees truncated bodies
            s3=style,
        )
        try:
            self._client = boto3.client("s3", endpoint_url=endpoint_url, region_name="us-east-1", config=settings)
        except (ValueError, BotoCoreError) as error:
            raise BadInput(f"S3 endpoint {endpoint_url or 'of AWS'}: {error}") from None

    def url(self, prefix: str) -> str:
        """`s3://bucket/prefix`."""
        return f"s3://{self.bucket}/{prefix}"

    def list(self, prefix: str) -> list[StoredObject]:
        """All objects below the folder `prefix`, in as many pages as it takes."""
        folder = prefix.rstrip("/") + "/"
        found: list[StoredObject] = []
        ask = {"Bucket": self.bucket, "Prefix": folder}
        while True:
            page = self._ask_again(prefix, lambda: self._client.list_objects_v2(**ask))
            for item in page.get("Contents", []):
                key, size = item["Key"], item["Size"]
                # Consoles mark "folders" with an empty object; it is no file.
                if not (key.endswith("/") and size == 0):
                    found.append(StoredObject(key, key.removeprefix(folder), size, item["ETag"].strip('"')))
            if not page.get("IsTruncated"):
                break
            ask["ContinuationToken"] = page["NextContinuationToken"]
        if not found:
            raise BadInput(f"{self.url(prefix)}: holds no objects; expected a folder of the bucket")
        return found

    def describe(self, key: str) -> StoredObject:
        """One object of at least a byte, under its whole key as name; BadInput where there is none.

        Needs no right but that to read it.
        """
        ask = {"Bucket": self.bucket, "Key": key, "Range": "bytes=0-0"}
        try:
            answer = self._ask_again(key, lambda: self._client.get_object(**ask))
        except RunFailed as error:
            if "NoSuchKey" not in str(error):
                raise
            raise BadInput(f"{self.url(key)}: there is no such object") from None
        answer["Body"].close()
        return StoredObject(key, key, int(answer["ContentRange"].rpartition("/")[2]), answer["ETag"].strip('"'))

    def read(self, stored: StoredObject, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The object's bytes, piece by piece; Unreliable where the body ends early."""
        ask = {"Bucket": self.bucket, "Key": stored.key}
        if stored.etag:
            ask["IfMatch"] = f'"{stored.etag}"'
        last = (stored.size if end is None else end) - 1
        ranged = begin > 0 or last < stored.size - 1
        if ranged:
            ask["Range"] = f"bytes={begin}-{last}"
        answer = self._ask(stored.key, lambda: self._client.get_object(**ask))
        body = answer["Body"]
        with body:  # not "as body": that would be the raw stream, which does not notice when it ends early
            if ranged and not str(answer.get("ContentRange")).startswith(f"bytes {begin}-{last}/"):
                held = answer.get("ContentRange", "all of it")
                raise RunFailed(f"{self.url(stored.key)}: asked for bytes {begin}-{last}, the endpoint gave {held}")
            while piece := self._ask(stored.key, lambda: body.read(_PIECE)):
                yield piece

    def part_size(self, stored: StoredObject) -> int | None:
        """Bytes in the first part; None where the endpoint does not tell."""
        ask = {"Bucket": self.bucket, "Key": stored.key, "PartNumber": 1}
        try:
            answer = self._ask_again(stored.key, lambda: self._client.head_object(**ask))
        except EmsuiteError:
            return None
        return answer["ContentLength"] if answer.get("PartsCount", 1) > 1 else None

    def _ask_again(self, key: str, call: Callable[[], Result]) -> Result:
        return retried(lambda: self._ask(key, call), tries_to_reach=_TRIES_TO_REACH)

    def _ask(self, key: str, call: Callable[[], Result]) -> Result:
        """`call`, with what the client raises turned into the suite's own errors."""
        from botocore import exceptions
        from botocore.parsers import ResponseParserError

        where = self.url(key)
        try:
            return call()
        except exceptions.ClientError as error:
            raise self._refusal(where, error.response) from None
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
            raise Unreliable(f"{where}: {error}") from None
        except exceptions.BotoCoreError as error:
            raise BadInput(f"{where}: {error}") from None

    def _refusal(self, where: str, answer: dict[str, Any]) -> Exception:
        code = str(answer.get("Error", {}).get("Code", "unknown"))
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _PASSING or status >= 500 or status == 429:
            return Unreliable(f"{where}: {status} {code}")
        if status == 412:
            return _changed(where)
        if code == "NoSuchBucket":
            return BadInput(f"{where}: there is no bucket '{self.bucket}'")
        if status == 403:
            return BadInput(f"{where}: access refused (403); expected a bucket that anyone may list and read")
        message = answer.get("Error", {}).get("Message", "")
        return RunFailed(f"{where}: {status} {code}: {message}")


class FolderStore:
    """A folder on this machine or its network; checksums are MD5, as S3's ETags of objects put in one part are."""

    def __init__(self, root: Path, connections: int = 16):
        self.root = Path(root)
        self._connections = connections

    def url(self, prefix: str) -> str:
        """`file:///root/prefix`."""
        return (self.root / prefix).resolve().as_uri()

    def list(self, prefix: str) -> list[StoredObject]:
        """All files below `prefix`; reads each once for its checksum. Refuses what a run left unfinished."""
        folder = self.root / prefix
        if not folder.is_dir():
            raise BadInput(f"{folder}: no such folder")
        check_finished(folder)
        files = []
        for place, names, held in os.walk(folder):
            for name in names:
                if (Path(place) / name).is_symlink():
                    raise BadInput(f"{Path(place) / name}: is a link to another folder; expected the files themselves")
            files += [Path(place) / name for name in held]
        if not files:
            raise BadInput(f"{folder}: holds no files")
        with ThreadPoolExecutor(self._connections) as pool:
            return list(pool.map(lambda file: self._describe(file, folder), sorted(files)))

    def read(self, stored: StoredObject, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The file's bytes, piece by piece."""
        left = (stored.size if end is None else end) - begin
        try:
            with open(self.root / stored.key, "rb") as file:
                if os.fstat(file.fileno()).st_size != stored.size:
                    raise _changed(self.url(stored.key))
                file.seek(begin)
                while piece := file.read(min(_PIECE, left)):
                    yield piece
                    left -= len(piece)
        except OSError as error:
            raise _unreadable(self.root / stored.key, error) from None

    def part_size(self, stored: StoredObject) -> int | None:
        """None: files have no parts."""
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


_ETAG = re.compile(r"([0-9a-f]{32})(?:-(\d+))?")
_MIB = 1 << 20
_COMMON_PART_SIZES = tuple(n * _MIB for n in (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 256, 512, 1024))


def md5(content: bytes = b"") -> Any:
    """An MD5 hash; marked as a checksum, for machines that refuse MD5 as a secret's guard."""
    return hashlib.md5(content, usedforsecurity=False)


def in_parts(etag: str) -> bool:
    """Whether an object with this ETag was put in parts."""
    known = _ETAG.fullmatch(etag)
    return bool(known and known.group(2))


def matches(path: Path, etag: str, part_size: int | None = None) -> bool | None:
    """Whether the file has this ETag; None where that cannot be told (parts of an unknown size, or no MD5 at all).

    `part_size` is the bytes of the first part, where it is known.
    """
    known = _ETAG.fullmatch(etag)
    if known is None:
        return None
    if not known.group(2):
        with open(path, "rb") as file:
            return hashlib.file_digest(file, md5).hexdigest() == etag
    parts, size = int(known.group(2)), path.stat().st_size
    candidates = part_sizes(size, parts) if part_size is None else [part_size]
    plausible = [n for n in candidates if math.ceil(size / n) == parts]
    if any(_etag_in_parts(path, n) == etag for n in plausible):
        return True
    return False if part_size is not None and plausible else None


def part_sizes(size: int, parts: int) -> list[int]:
    """Sizes of the parts in which programs would put `size` bytes as `parts` parts: common ones, then an even split."""
    even = math.ceil(size / parts)
    candidates = [*_COMMON_PART_SIZES, math.ceil(even / _MIB) * _MIB, even]
    return [n for n in dict.fromkeys(candidates) if n and math.ceil(size / n) == parts]


def _etag_in_parts(path: Path, part_size: int) -> str:
    digests = []
    with open(path, "rb") as file:
        while True:
            part, left = md5(), part_size
            while left and (piece := file.read(min(_PIECE, left))):
                part.update(piece)
                left -= len(piece)
            if left < part_size:
                digests.append(part.digest())
            if left:
                return f"{md5(b''.join(digests)).hexdigest()}-{len(digests)}"
