"""ETags of S3, as checksums of files, see https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html.

    0123456789abcdef0123456789abcdef        an object uploaded at once: the MD5 of its bytes
    0123456789abcdef0123456789abcdef-12     a multipart upload of 12 parts: the MD5 of the MD5s of the parts
    W/"5e1f", 0x8DB2A5C7, nothing at all    other servers: no checksum

An ETag does not tell the size of the parts. All parts but the last are of the same size, and programs use few sizes.
"""

import hashlib
import math
import re
from pathlib import Path
from typing import Any

_MIB = 1 << 20
_PIECE_BYTES = _MIB
_ETAG = re.compile(r"([0-9a-f]{32})(?:-(\d+))?")
_COMMON_PART_SIZES = tuple(n * _MIB for n in (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 256, 512, 1024))
_WEAK = "W/"


def md5(content: bytes = b"") -> Any:
    """Return an MD5 hash that is marked as a checksum: some machines refuse MD5 for security."""
    return hashlib.md5(content, usedforsecurity=False)


def clean_etag(header: str | None) -> str:
    """Return an ETag without quotes, an MD5 in small letters; "" for none. A weak one keeps its `W/`: it is no MD5."""
    text = (header or "").strip()
    etag = _WEAK * text.startswith(_WEAK) + text.removeprefix(_WEAK).strip('"')
    return etag.lower() if _ETAG.fullmatch(etag.lower()) else etag


def same_version(etag: str, other: str) -> bool:
    """Return whether two ETags may belong to the same bytes: they are equal but for `W/`, or one of them is missing."""
    return not etag or not other or etag.removeprefix(_WEAK) == other.removeprefix(_WEAK)


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
    if parts < 1:
        return []
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
