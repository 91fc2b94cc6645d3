"""tensorstore behind several formats: opened late, bounded in memory and threads, each failure told in one line.

    index -> plain_region -> files are files? -> tensorstore -> voxels (C) Z Y X
                                 |
                                 +-- a pipe, or an empty file, is refused before tensorstore waits for it

tensorstore ends a process that forked after tensorstore had started its threads. It is therefore loaded by the first
voxel that is read or written; a forked process whose parent had loaded it asks a fresh process for its voxels.
"""

import errno
import functools
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from emsuite.common.errors import BadInput, EmsuiteError
from emsuite.common.files import has_content
from emsuite.io.formats.tensors.elsewhere import helper

Region = tuple[slice, ...]
"""A range of voxels for each axis, with begin and end and without a step."""
LARGEST_CHUNK = 2**31
"""Bytes of the voxels of one chunk, at most: a chunk is decoded as a whole."""
_LARGEST = 2**62  # voxels along an axis
_CACHE = 0  # bytes of decoded chunks that are kept: the chunks of a file may change between two reads
_FILES_AT_ONCE, _REQUESTS_AT_ONCE, _MOST_THREADS = 8, 8, 16
_RETRIES = {"max_retries": 5, "initial_delay": "200ms", "max_delay": "5s"}
_ENVIRONMENT = {  # libcurl's: a server that sends less than so many bytes a second for so long counts as dead
    "TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS": "30",
    "TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES": "100",
}
_READ_ONLY = "PERMISSION_DENIED"
_started, _inherited = False, False


def _after_fork() -> None:
    global _inherited
    _inherited = _inherited or _started


def is_usable() -> bool:
    """Return whether this process can use tensorstore: it was not forked from one that had started it."""
    return not _inherited


def library() -> Any:
    """Return tensorstore, loaded; this process can no longer fork processes that use it themselves."""
    global _started
    if not _started:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        os.register_at_fork(after_in_child=_after_fork)
        _started = True
    import tensorstore

    return tensorstore


@functools.cache
def context() -> Any:
    """Return the limits of memory, threads, requests and retries, the same for all arrays of this process."""
    torch = sys.modules.get("torch")
    # a worker of several has one core, and has told torch so
    threads = torch.get_num_threads() if torch else len(os.sched_getaffinity(0))
    return library().Context(
        {
            "cache_pool": {"total_bytes_limit": _CACHE},
            "data_copy_concurrency": {"limit": max(1, min(threads, _MOST_THREADS))},
            "file_io_concurrency": {"limit": _FILES_AT_ONCE},
            "http_request_concurrency": {"limit": _REQUESTS_AT_ONCE},
            "s3_request_concurrency": {"limit": _REQUESTS_AT_ONCE},
            "gcs_request_concurrency": {"limit": _REQUESTS_AT_ONCE},
            "http_request_retries": _RETRIES,
            "s3_request_retries": _RETRIES,
            "gcs_request_retries": _RETRIES,
        }
    )


def file_store(folder: Path | str) -> dict[str, Any]:
    """Return the kvstore of a local folder. Files are renamed when they are whole; the disk is not waited for."""
    return {"driver": "file", "path": f"{os.path.abspath(folder)}/", "file_io_sync": False}


class ChunkFiles(Protocol):
    """The local files of an array's chunks."""

    def check(self, region: Region) -> None:
        """Raise BadInput if a file that holds voxels of the region is no plain file, is empty or cannot be right."""

    def of(self, region: Region) -> Iterator[Path]:
        """Yield the paths of the files that hold voxels of the region; chunks of zeros may have none."""


@dataclass(frozen=True)
class TensorArray:
    """An array of tensorstore as `StoredArray.array`: (C) Z Y X, read and written by slices, sent between processes."""

    where: str
    """Path or URL, for messages."""
    spec: str
    """tensorstore's description, as JSON; its axes are x, y, z, c, or c, z, y, x if `reverse` is not set."""
    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None = None
    writable: bool = False
    reverse: bool = True
    single: int | None = None
    """The axis of tensorstore's that has one channel and is left out."""
    files: ChunkFiles | None = None
    assume: bool = False
    """Whether `spec` holds all metadata, so that those on the disk are not read again."""

    def __post_init__(self) -> None:
        lengths = (*self.shape, *self.chunks)
        if self.dtype.kind not in "biuf":
            raise BadInput(f"{self.where}: voxels of type {self.dtype}, expected numbers")
        if not all(0 <= n < _LARGEST for n in lengths) or min(self.chunks, default=1) < 1:
            raise BadInput(f"{self.where}: shape {self.shape} in chunks of {self.chunks}, expected lengths above 0")
        if np.prod([float(n) for n in self.chunks]) * self.dtype.itemsize > LARGEST_CHUNK:
            raise BadInput(f"{self.where}: chunks of {self.chunks} voxels, expected at most {LARGEST_CHUNK:,} bytes")

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of voxels."""
        return int(np.prod(self.shape, dtype=object))

    def __getitem__(self, index: Any) -> np.ndarray:
        """Return voxels by integers and slices; raise BadInput for a damaged chunk."""
        region, rest = plain_region(index, self.shape)
        if self.files:
            self.files.check(region)
        voxels: np.ndarray = anywhere(read_region, self, region)
        return voxels[rest]

    def __setitem__(self, index: Any, voxels: Any) -> None:
        """Write voxels by integers and slices."""
        region, rest = plain_region(index, self.shape)
        shape = [part.stop - part.start for part in region]
        if not self.writable:
            raise BadInput(f"{self.where}: is open for reading only")
        if self.files and not self._are_whole_chunks(region):
            self.files.check(region)
        whole = np.empty(shape, self.dtype)
        whole[rest] = voxels
        anywhere(write_region, self, region, whole)

    def _are_whole_chunks(self, region: Region) -> bool:
        """Return whether a region holds all of its chunks, so that nothing of their old files is kept."""
        parts = zip(region, self.chunks, self.shape, strict=True)
        return all(part.start % n == 0 and (part.stop % n == 0 or part.stop == end) for part, n, end in parts)

    def has_files(self, index: Any) -> bool:
        """Return whether every chunk of a region has a file with content; True of those whose files are unknown."""
        return self.files is None or all(map(has_content, self.files.of(plain_region(index, self.shape)[0])))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all voxels."""
        return np.asarray(self[...], dtype)


def plain_region(index: Any, shape: Sequence[int]) -> tuple[Region, tuple[Any, ...]]:
    """Split an index of integers, slices and `...` into a region to read, and the index of its voxels to return.

    Raises:
        IndexError: The index has other parts, too many of them, or an integer outside the array.
    """
    items = list(index) if isinstance(index, tuple) else [index]
    if sum(item is Ellipsis for item in items) > 1 or len(items) - (Ellipsis in items) > len(shape):
        raise IndexError(f"index {index} of an array of {len(shape)} axes")
    at = items.index(Ellipsis) if Ellipsis in items else len(items)
    missing = len(shape) - len([item for item in items if item is not Ellipsis])
    items[at : at + 1] = [slice(None)] * missing
    region: list[slice] = []
    rest: list[Any] = []
    for item, n in zip(items, shape, strict=True):
        if isinstance(item, slice):
            begin, end, step = item.indices(n)
            steps = range(begin, end, step)
            low, high = (min(steps[0], steps[-1]), max(steps[0], steps[-1]) + 1) if steps else (begin, begin)
            region.append(slice(low, high))
            rest.append(slice(None, None, step))
            continue
        number = _integer(item)
        if not -n <= number < n:
            raise IndexError(f"index {number} is outside an axis of {n} voxels")
        region.append(slice(number % n, number % n + 1))
        rest.append(0)
    return tuple(region), tuple(rest)


def _integer(item: Any) -> int:
    if isinstance(item, bool) or not hasattr(item, "__index__"):
        raise IndexError(f"index {item!r}, expected an integer or a slice")
    return int(item.__index__())


def read_region(array: TensorArray, region: Region) -> np.ndarray:
    """Read voxels in this process; raise BadInput for a damaged chunk or a server that does not answer."""
    with telling(array.where):
        return np.asarray(_opened(array)[region].read(order="C").result())


def write_region(array: TensorArray, region: Region, voxels: np.ndarray) -> None:
    """Write voxels in this process, and return when all files have them."""
    with telling(array.where):
        _opened(array)[region].write(voxels).result()


@functools.lru_cache(64)
def _opened(array: TensorArray) -> Any:
    ts = library()
    modes = {"read": True, "write": array.writable or None, "assume_metadata": array.assume or None}
    store = ts.open(json.loads(array.spec), open=True, context=context(), **modes).result()
    if array.single is not None:
        store = store[(slice(None),) * array.single + (store.domain.inclusive_min[array.single],)]
    store = store[ts.d[:].translate_to[0]]
    return store.T if array.reverse else store


class telling:
    """Turns what tensorstore raises within the block into BadInput or OSError, in one line."""

    def __init__(self, where: str):
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, EmsuiteError | OSError | MemoryError):
            raise _told(self._where, str(error)) from None


def _told(where: str, text: str) -> Exception:
    text = re.split(r" \[[\w ]+=", text)[0]
    if number := re.search(r"\[OS error (\d+)", text) or (re.search(r"No space left", text) and [0, errno.ENOSPC]):
        return OSError(int(number[1]), os.strerror(int(number[1])), where)
    if text.startswith(_READ_ONLY) and "local file" in text:
        return PermissionError(errno.EACCES, os.strerror(errno.EACCES), where)
    reason = re.sub(r"; at (?:uncompressed )?byte \d+", "", text)
    if (file := re.match(r'.*Error reading local file "([^"]+)": (.*)', reason, re.DOTALL)) is not None:
        return BadInput(f"{file[1]}: the chunk is damaged: {file[2]}")
    return BadInput(f"{where}: cannot be read: {reason[:400]}")


def check_file(path: Path) -> int:
    """Return the bytes of a chunk's file, 0 if it is missing; raise BadInput for an empty one or for no plain file."""
    try:
        state = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    if stat.S_ISREG(state.st_mode):
        if state.st_size == 0:
            raise BadInput(f"{path}: is damaged: it is empty")
        return state.st_size
    kind = "a pipe" if stat.S_ISFIFO(state.st_mode) else "no file"
    raise BadInput(f"{path}: is {kind}, expected a file")


def read_keys(where: str, store: dict[str, Any], keys: Sequence[str]) -> list[bytes | None]:
    """Return small objects of a kvstore, read at once; None for those that are missing.

    Raises:
        BadInput: The server does not answer, or refuses all that it has.
    """
    found: list[bytes | None] = anywhere(_read_keys, where, json.dumps(store), tuple(keys))
    return found


def _read_keys(where: str, store: str, keys: tuple[str, ...]) -> list[bytes | None]:
    found: list[bytes | None] = []
    refusal: Exception | None = None
    with telling(where):
        opened = library().KvStore.open(json.loads(store), context=context()).result()
        for answer in [opened.read(key) for key in keys]:
            try:
                one = answer.result()
                found.append(bytes(one.value) if one.state == "value" else None)
            except (ValueError, PermissionError) as error:
                # without the right to list a bucket, S3 refuses what is missing, too
                if not str(error).startswith("PERMISSION_DENIED"):
                    raise
                found.append(None)
                refusal = error
        if refusal and not any(found):
            raise ValueError(str(refusal))
    return found


def anywhere(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call `function`, in a fresh process if tensorstore cannot be used in this one."""
    return function(*arguments) if is_usable() else helper(os.getpid()).call(function, *arguments)
