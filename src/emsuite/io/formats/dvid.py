"""DVID's arrays over HTTP: grey values (uint8blk) and labels (labelblk, labelmap, labelarray). Read only.

dvid://emdata.example.org:8000/UUID/grayscale        https: dvid://https://emdata.example.org/UUID/grayscale
   |
   +-- GET api/node/UUID/grayscale/info               block size, voxel size, the first and the last voxel
   +-- GET api/node/UUID/grayscale/raw/0_1_2/64_64_64/1024_0_512        voxels of a box, x y z
"""

import hashlib
import json
import math
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.common.errors import BadInput, RunFailed
from emsuite.io.formats.base import Mode, StoredArray
from emsuite.io.formats.sections.lazy_array import Box, LazyArray, check_voxels

_TYPES = {"uint8blk": "u1", "uint16blk": "<u2", "float32blk": "<f4"}
_TYPES |= dict.fromkeys(("labelblk", "labelmap", "labelarray"), "<u8")
_MOST_BYTES = 2**25
"""Of one request: servers refuse very large ones, and memory is that of one answer."""
_MOST_METADATA = 2**24
_ATTEMPTS, _FIRST_DELAY = 4, 0.5
_SECONDS = 60
_FARTHEST = 2**31
"""Coordinates of DVID are 32 bit integers."""


def open_array(container: str, name: str, mode: Mode) -> StoredArray:
    """See `Format.open_array`; the shape is that of all voxels that were ever written to the array."""
    if mode != "r":
        raise BadInput(f"{container}: DVID is read only, expected a path as VOLUME.zarr/volumes/raw to write to")
    url = _url(container)
    info = _info(container, url)
    dtype = np.dtype(_TYPES[info["Base"]["TypeName"]])
    extended = info.get("Extended")
    said: dict[str, Any] = extended if isinstance(extended, dict) else {}
    begin, last, block = (_point(container, said, key) for key in ("MinPoint", "MaxPoint", "BlockSize"))
    if begin is None or last is None or any(b > e for b, e in zip(begin, last, strict=True)):
        raise BadInput(f"{container}: holds no voxels ({said.get('MinPoint')} to {said.get('MaxPoint')})")
    shape = tuple(e - b + 1 for b, e in zip(begin, last, strict=True))
    check_voxels(Path(container), shape, dtype)
    block = block if block and min(block) > 0 else [64, 64, 64]

    def read(box: Box) -> np.ndarray:
        return _read(url, container, box, begin, block, dtype)

    array = LazyArray(shape, dtype, tuple(block), read)
    return StoredArray(array, _attributes(said, begin), ("z", "y", "x"))


def array_names(container: str) -> list[str]:
    """See `Format.array_names`: the array that the URL names."""
    _info(container, _url(container))
    return [""]


def holds_array(container: str, name: str) -> bool:
    """See `Format.holds_array`."""
    try:
        _info(container, _url(container))
    except BadInput:
        return False
    return not name


def fingerprint(container: str, name: str) -> str:
    """See `Format.fingerprint`: a hash of what the server says; an array of an open version may still change."""
    info = json.dumps(_info(container, _url(container)), sort_keys=True)
    return "dvid:" + hashlib.sha256(info.encode()).hexdigest()[:32]


def _url(container: str) -> str:
    """Return the address of an array on its server."""
    rest = re.sub(r"^dvid:/+", "", container)
    scheme, rest = match.groups() if (match := re.match(r"(https?):/+(.*)", rest)) else ("http", rest)
    host, *parts = rest.strip("/").split("/")
    if len(parts) != 2 or not host or not all(re.fullmatch(r"[\w.~-]+", part) for part in parts):
        raise BadInput(f"{container}: no array of DVID, expected dvid://HOST:PORT/UUID/NAME")
    return f"{scheme}://{host}/api/node/{parts[0]}/{parts[1]}"


def _info(container: str, url: str) -> dict[str, Any]:
    try:
        text = _get(url + "/info", container, _MOST_METADATA)
        info = json.loads(text)
        kind = info["Base"]["TypeName"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise BadInput(f"{container}: the server's answer describes no array of DVID") from None
    if kind not in _TYPES:
        raise BadInput(f"{container}: is a {kind}, expected {', '.join(_TYPES)}")
    return info


def _point(container: str, said: dict[str, Any], key: str) -> list[int] | None:
    """Return three whole numbers in the order z, y, x; DVID says x, y, z."""
    value = said.get(key)
    if value is None:
        return None
    if (
        not isinstance(value, list)
        or len(value) != 3
        or not all(isinstance(n, int) and abs(n) < _FARTHEST for n in value)
    ):
        raise BadInput(f"{container}: the server says {key} {value}, expected three whole numbers")
    return value[::-1]


def _attributes(said: dict[str, Any], begin: list[int]) -> dict[str, Any]:
    size, units = said.get("VoxelSize"), said.get("VoxelUnits")
    if not isinstance(size, list) or len(size) != 3 or not all(isinstance(n, int | float) and n > 0 for n in size):
        return {}
    size = size[::-1]
    attributes = {"voxel_size": size, "offset": [n * width for n, width in zip(begin, size, strict=True)]}
    return attributes | ({"units": units[::-1]} if isinstance(units, list) and len(units) == 3 else {})


def _read(url: str, container: str, box: Box, begin: list[int], block: list[int], dtype: np.dtype) -> np.ndarray:
    voxels = np.zeros([part.stop - part.start for part in box], dtype.newbyteorder("="))
    for piece in _pieces(box, block, dtype.itemsize):
        shape = [part.stop - part.start for part in piece]
        place = [part.start + first for part, first in zip(piece, begin, strict=True)]
        where = f"{'_'.join(map(str, shape[::-1]))}/{'_'.join(map(str, place[::-1]))}"
        expected = math.prod(shape) * dtype.itemsize
        data = _get(f"{url}/raw/0_1_2/{where}", container, expected, exactly=True)
        target = tuple(slice(p.start - b.start, p.stop - b.start) for p, b in zip(piece, box, strict=True))
        voxels[target] = np.frombuffer(data, dtype).reshape(shape)
    return voxels


def _pieces(box: Box, block: list[int], itemsize: int) -> Iterator[Box]:
    """Yield parts of a box of at most `_MOST_BYTES`: whole columns of blocks, as far as they fit."""
    lengths = [part.stop - part.start for part in box]
    axis = 0
    while math.prod(lengths) * itemsize > _MOST_BYTES and axis < 3:
        other = math.prod(lengths[:axis] + lengths[axis + 1 :]) * itemsize
        fits = max(1, _MOST_BYTES // other)
        step = max(fits // block[axis] * block[axis], min(block[axis], lengths[axis]))
        lengths[axis], axis = min(step, lengths[axis]), axis + 1
    for z in range(box[0].start, box[0].stop, lengths[0]):
        for y in range(box[1].start, box[1].stop, lengths[1]):
            for x in range(box[2].start, box[2].stop, lengths[2]):
                corner = (z, y, x)
                yield tuple(slice(b, min(b + n, part.stop)) for b, n, part in zip(corner, lengths, box, strict=True))


def _get(url: str, container: str, most: int, exactly: bool = False) -> bytes:
    """Return the body of an answer; what may pass is tried again.

    Raises:
        BadInput: The server refuses, or its answer has more than `most` bytes.
        RunFailed: The server does not answer, or its answers end early.
    """
    delay, problem = _FIRST_DELAY, ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(delay)
            delay *= 2
        try:
            with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
                body = answer.read(most + 1)
        except urllib.error.HTTPError as error:
            problem = f"status {error.code} {error.reason}"
            if error.code < 500 and error.code != 429:
                raise BadInput(f"{container}: the server refuses {url}: {problem}") from None
            continue
        except (OSError, HTTPException) as error:  # no connection, or one that ended early
            problem = str(getattr(error, "reason", None) or error) or type(error).__name__
            continue
        except ValueError as error:
            raise BadInput(f"{container}: {error}; expected dvid://HOST:PORT/UUID/NAME") from None
        if len(body) > most:
            raise BadInput(f"{container}: the server sends more than the {most:,} bytes of {url}")
        if not exactly or len(body) == most:
            return body
        problem = f"{len(body):,} of {most:,} bytes"
    raise RunFailed(f"{container}: no answer from {url} in {_ATTEMPTS} attempts: {problem}")
