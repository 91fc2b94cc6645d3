"""The voxels of zarr arrays through tensorstore, at several times zarr-python's speed, with the same promises.

    written    whole shards, or chunks where there are none, by tensorstore: nothing is read first
               parts of them by zarr-python, which checks the old chunk before it decodes it; a process that cannot use
               tensorstore, as it was forked from one that does, lets another write, so that the bytes are the same
    read       by tensorstore if it bounds the output of all codecs; whatever it refuses is read again by zarr-python,
               whose checks (see `zarr_chunks`) name the damaged file, or bear with what tensorstore does not know

zarr-python keeps metadata, attributes and groups, and codecs without a bound or that tensorstore lacks: gzip and zlib
(tensorstore takes a file whose checksum was cut off), blosc within shards, lz4, lzma and all filters.

tensorstore gets the metadata from here, never from the disk, with the shape rounded up to whole shards. A shard at the
end of an axis then counts as whole, too: otherwise tensorstore would read the file that is replaced.
"""

import functools
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.core.buffer import default_buffer_prototype

from emsuite.common.errors import BadInput
from emsuite.common.files import has_content
from emsuite.io.formats.tensors import store as tensor_store
from emsuite.io.formats.tensors.store import Region, check_file, plain_region

_V2 = ("zarr_format", "shape", "chunks", "dtype", "compressor", "fill_value", "order", "filters", "dimension_separator")
_V3 = ("zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs")
_BOUNDED_V2 = (None, "zstd", "blosc", "bz2")
_BOUNDED_V3 = ("bytes", "transpose", "zstd", "blosc", "crc32c")
_PADDED = 2**26  # bytes that may be added to a write at the end of axes, or as many as it has
_BLOSC_HEADER = 16  # bytes


class TensorZarr:
    """An array of zarr-python, whose voxels are read and written by tensorstore where it can: see the module."""

    def __init__(self, array: zarr.Array, folder: Path):
        self._array, self._folder = array, folder
        self._is_blosc = False
        self._described: dict[str, Any] | None = _metadata(array)
        self._reads = self._described is not None and _is_bounded(self._described)
        if self._described and array.metadata.zarr_format == 3:
            self._is_blosc = any(codec["name"] == "blosc" for codec in self._described["codecs"])
        elif self._described:
            self._is_blosc = (self._described["compressor"] or {}).get("id") == "blosc"

    def __reduce__(self) -> Any:
        return TensorZarr, (self._array, self._folder)

    def __getattr__(self, name: str) -> Any:
        """Return what zarr-python's array has by that name: shape, dtype, chunks, shards, attrs, metadata."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._array, name)

    def __len__(self) -> int:
        return int(self._array.shape[0])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all voxels."""
        return np.asarray(self[...], dtype)

    def __getitem__(self, index: Any) -> Any:
        """Return voxels; raise BadInput for a damaged chunk."""
        if self._reads and (store := self._tensors()) is not None:
            try:
                region, rest = plain_region(index, self._array.shape)
                self._check(region)
                return np.asarray(store[region].read(order="C").result())[rest]
            except BadInput:
                raise
            except (IndexError, ValueError, OSError, NotImplementedError):
                pass  # zarr-python reads it, or says what is wrong
        return self._array[index]

    def __setitem__(self, index: Any, voxels: Any) -> None:
        """Write voxels; raise BadInput for a part of a damaged chunk."""
        whole = None if self._array.read_only or self._described is None else self._whole_blocks(index, voxels)
        with tensor_store.telling(str(self._folder)):
            # another process writes for one that cannot: the bytes must not depend on the process
            written = whole is not None and tensor_store.anywhere(_write, self._spec(), *whole)
        if not written:
            self._array[index] = voxels

    def _tensors(self) -> Any:
        """Return tensorstore's array; None where it cannot be used, or does not know the array's codecs."""
        if self._described is None or not tensor_store.is_usable():
            return None
        return _opened(self._spec())

    def _spec(self) -> str:
        """Return tensorstore's description of the array, as JSON."""
        assert self._described is not None
        driver = "zarr3" if self._array.metadata.zarr_format == 3 else "zarr"
        shape = [-(-n // block) * block for n, block in zip(self._array.shape, self._blocks, strict=True)]
        kvstore = tensor_store.file_store(self._folder)
        return json.dumps({"driver": driver, "kvstore": kvstore, "metadata": self._described | {"shape": shape}})

    @property
    def _blocks(self) -> tuple[int, ...]:
        return self._array.shards or self._array.chunks

    def _check(self, region: Region) -> None:
        """Raise BadInput for a file of the region that is none, or ValueError for blosc that announces another size."""
        for path in self._files(region):
            if check_file(path) and self._is_blosc:
                with open(path, "rb") as file:
                    announced = int.from_bytes(file.read(_BLOSC_HEADER)[4:8], "little")
                if announced != math.prod(self._blocks) * self._array.dtype.itemsize:
                    raise ValueError(f"{path}: announces {announced:,} bytes")

    def has_files(self, index: Any) -> bool:
        """Return whether every chunk, or shard, of a region has a file with content; chunks of zeros have none."""
        return all(map(has_content, self._files(plain_region(index, self._array.shape)[0])))

    def _files(self, region: Region) -> Iterator[Path]:
        parts = [range(r.start // n, -(-r.stop // n)) for r, n in zip(region, self._blocks, strict=True)]
        return (self._folder / self._array.metadata.encode_chunk_key(at) for at in itertools.product(*parts))

    def _whole_blocks(self, index: Any, voxels: Any) -> tuple[Region, np.ndarray] | None:
        """Return a region of whole shards, or chunks, and its voxels, 0 behind the ends; None for parts of them."""
        try:
            region, rest = plain_region(index, self._array.shape)
        except IndexError:
            return None
        blocks, ends = self._blocks, []
        for part, n, block in zip(region, self._array.shape, blocks, strict=True):
            if part.start % block or part.start == part.stop or (part.stop % block and part.stop != n):
                return None
            ends.append(-(-part.stop // block) * block)
        shape = [part.stop - part.start for part in region]
        padded = [end - part.start for part, end in zip(region, ends, strict=True)]
        n_bytes = math.prod(shape) * self._array.dtype.itemsize
        if math.prod(padded) * self._array.dtype.itemsize > max(2 * n_bytes, n_bytes + _PADDED):
            return None
        given = np.asarray(voxels)
        if padded == shape == list(given.shape) and given.dtype == self._array.dtype:
            return region, given
        whole = np.full(padded, self._array.fill_value or 0, self._array.dtype)
        whole[tuple(slice(n) for n in shape)][rest] = given
        return tuple(slice(part.start, end) for part, end in zip(region, ends, strict=True)), whole


@functools.lru_cache(maxsize=64)
def _opened(spec: str) -> Any:
    """Return tensorstore's array, once for each process; None if it does not know the array's codecs."""
    ts = tensor_store.library()
    try:
        # no attribute and no shape is read from the disk or written to it
        return ts.open(json.loads(spec), open=True, assume_metadata=True, context=tensor_store.context()).result()
    except (ValueError, NotImplementedError):
        return None


def _write(spec: str, region: Region, voxels: np.ndarray) -> bool:
    """Write whole blocks; return whether tensorstore knows the array's codecs."""
    if (store := _opened(spec)) is None:
        return False
    store[region].write(voxels).result()
    return True


def _metadata(array: zarr.Array) -> dict[str, Any] | None:
    """Return the part of an array's document that tensorstore asks for; None where empty chunks are to be stored."""
    document = "zarr.json" if array.metadata.zarr_format == 3 else ".zarray"
    written = array.metadata.to_buffer_dict(default_buffer_prototype())[document].to_bytes()
    content = json.loads(written)
    if array.async_array.config.write_empty_chunks or not array.shape:
        return None
    return {key: content[key] for key in (_V3 if document == "zarr.json" else _V2) if key in content}


def _is_bounded(metadata: dict[str, Any]) -> bool:
    """Return whether tensorstore decodes no more than a chunk's voxels, and refuses each chunk that is cut off."""
    if metadata["zarr_format"] == 2:
        return (metadata["compressor"] or {"id": None})["id"] in _BOUNDED_V2 and not metadata["filters"]
    codecs = metadata["codecs"]
    if len(codecs) == 1 and codecs[0]["name"] == "sharding_indexed":
        inside = codecs[0]["configuration"]
        codecs = [*inside["codecs"], *inside["index_codecs"]]
        if any(codec["name"] == "blosc" for codec in codecs):
            return False
    return all(codec["name"] in _BOUNDED_V3 for codec in codecs)
