"""How zarr's chunks are read: from plain files alone, checked before they are decoded, named if they are damaged.

    file -> PlainFiles -> CheckedPipeline -> voxels
                |              |
                |              +-- each codec's output has the length of the chunk's voxels, see `unpacking.py`
                +-- no pipe, no device, not empty, no range behind its end

Both are zarr's own classes with the checks added. An array gets them by `checked`; other users of zarr in the process
are not affected.
"""

import asyncio
import math
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.codec import Codec
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, TransposeCodec, ZstdCodec
from zarr.codecs._v2 import V2Codec
from zarr.codecs.numcodecs._codecs import _NumcodecsBytesBytesCodec, _NumcodecsCodec
from zarr.codecs.sharding import MAX_UINT_64, _ShardIndex
from zarr.core.array import AsyncArray
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, BufferPrototype, NDBuffer, default_buffer_prototype
from zarr.core.codec_pipeline import BatchedCodecPipeline
from zarr.storage import LocalStore, StorePath

from emsuite.common.errors import BadInput
from emsuite.io.formats.unpacking import check_codec, unpack

_KINDS = {stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device", stat.S_ISBLK: "a device"}
_KNOWN = (BytesCodec, TransposeCodec, Crc32cCodec, BloscCodec, ZstdCodec, GzipCodec)


class PlainFiles(LocalStore):
    """The files of an array. A file that is none, or that holds nothing, raises BadInput; reading never waits."""

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """See `zarr.abc.store.Store.get`."""
        path = self.root / key
        try:
            content = await asyncio.to_thread(read_plain, path, byte_range)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        return (prototype or default_buffer_prototype()).buffer.from_bytes(content)


def read_plain(path: Path, byte_range: ByteRequest | None = None) -> bytes:
    """Return the bytes of a file, or a range of them; raise BadInput for an empty file or another kind of file."""
    # a pipe would wait for a writer unless it is opened without blocking
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        state = os.fstat(file.fileno())
        if kind := next((kind for is_kind, kind in _KINDS.items() if is_kind(state.st_mode)), None):
            raise BadInput(f"{path}: is {kind}, expected a file")
        if state.st_size == 0:
            raise BadInput(f"{path}: is damaged: it is empty")
        begin, end = _bounds(byte_range, state.st_size)
        if not 0 <= begin < end <= state.st_size:
            raise BadInput(f"{path}: is damaged: bytes {begin:,} to {end:,} of {state.st_size:,} were to be read")
        file.seek(begin)
        return file.read(end - begin)


def _bounds(byte_range: ByteRequest | None, size: int) -> tuple[int, int]:
    if isinstance(byte_range, RangeByteRequest):
        return byte_range.start, byte_range.end
    if isinstance(byte_range, SuffixByteRequest):
        return size - byte_range.suffix, size
    return byte_range.offset if isinstance(byte_range, OffsetByteRequest) else 0, size


@dataclass(frozen=True)
class CheckedPipeline(BatchedCodecPipeline):
    """zarr's pipeline of codecs; a chunk that is damaged raises BadInput with the name of its file."""

    @classmethod
    def from_codecs(cls, codecs: Iterable[Codec], *, batch_size: int | None = None) -> "CheckedPipeline":
        """See `BatchedCodecPipeline.from_codecs`. One chunk at a time, so that the damaged one is known."""
        return super().from_codecs([_with_checks(codec) for codec in codecs], batch_size=1)

    async def read_batch(self, batch_info: Any, out: NDBuffer, drop_axes: tuple[int, ...] = ()) -> None:
        """See `BatchedCodecPipeline.read_batch`."""
        with _Naming(batch_info):
            await super().read_batch(batch_info, out, drop_axes)

    async def write_batch(self, batch_info: Any, value: NDBuffer, drop_axes: tuple[int, ...] = ()) -> None:
        """See `BatchedCodecPipeline.write_batch`; chunks that are written in part are read first."""
        with _Naming(batch_info):
            await super().write_batch(batch_info, value, drop_axes)

    async def decode_batch(self, chunk_bytes_and_specs: Any) -> list[NDBuffer | None]:
        """See `BatchedCodecPipeline.decode_batch`."""
        return [None if packed is None else await self._decoded(packed, spec) for packed, spec in chunk_bytes_and_specs]

    async def _decoded(self, packed: Buffer, spec: ArraySpec) -> NDBuffer | None:
        filters, (to_array, (array_spec,)), compressors = self._codecs_with_resolved_metadata_batched([spec])
        exact = isinstance(to_array, BytesCodec)
        size = _size_of(array_spec)
        for number, (codec, _) in reversed([*enumerate(compressors)]):
            library = _library_codec(codec)
            if library is None:
                packed = next(iter(await codec.decode([(packed, array_spec)])))  # type: ignore[assignment]
            else:
                data = packed.as_numpy_array()
                unpacked = await asyncio.to_thread(unpack, library, data, size, exact and number == 0)
                packed = spec.prototype.buffer.from_bytes(unpacked)
        if isinstance(to_array, V2Codec):
            to_array, packed = await asyncio.to_thread(_unpacked_v2, to_array, packed, array_spec)
        chunk = next(iter(await to_array.decode([(packed, array_spec)])))
        for a_filter, (filter_spec,) in reversed(filters):
            chunk = next(iter(await a_filter.decode([(chunk, filter_spec)])))
        return chunk


class _Naming:
    """Turns what codecs raise within the block into BadInput that names the chunk."""

    def __init__(self, batch_info: Any):
        self._source = batch_info[0][0]

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        if not isinstance(self._source, StorePath) or isinstance(error, BadInput | OSError | MemoryError):
            return  # the chunk of a shard: the shard's own pipeline names the file
        if isinstance(error, Exception):
            store = self._source.store
            path = store.root / self._source.path if isinstance(store, LocalStore) else self._source.path
            raise BadInput(f"{path}: the chunk is damaged: {error}") from None


@dataclass(frozen=True, init=False)
class _CheckedShards(ShardingCodec):
    """zarr's shards, with the same checks on the chunks inside and on the index."""

    @property
    def codec_pipeline(self) -> CheckedPipeline:
        """The pipeline of the chunks inside."""
        return CheckedPipeline.from_codecs(self.codecs)

    async def _decode_shard_index(self, index_bytes: Buffer, chunks_per_shard: tuple[int, ...]) -> _ShardIndex:
        index = await super()._decode_shard_index(index_bytes, chunks_per_shard)
        begin, length = index.offsets_and_lengths[..., 0], index.offsets_and_lengths[..., 1]
        absent = (begin == MAX_UINT_64) & (length == MAX_UINT_64)
        if not (absent | ((length > 0) & (length < 2**62) & (begin < 2**62))).all():
            raise ValueError("the index of the shard names chunks that cannot be")
        return index


def _with_checks(codec: Codec) -> Codec:
    if isinstance(codec, ShardingCodec) and not isinstance(codec, _CheckedShards):
        return _CheckedShards(
            chunk_shape=codec.chunk_shape,
            codecs=codec.codecs,
            index_codecs=codec.index_codecs,
            index_location=codec.index_location,
        )
    return codec


def _size_of(spec: ArraySpec) -> int:
    return math.prod(spec.shape) * spec.dtype.to_native_dtype().itemsize


def _library_codec(codec: Codec) -> Any:
    """Return the codec of numcodecs behind a codec from bytes to bytes; None for a checksum, which checks itself."""
    if isinstance(codec, BloscCodec):
        return codec._blosc_codec
    if isinstance(codec, ZstdCodec):
        return codec._zstd_codec
    if isinstance(codec, GzipCodec):
        return codec._gzip_codec
    return codec._codec if isinstance(codec, _NumcodecsBytesBytesCodec) else None


def _unpacked_v2(codec: V2Codec, packed: Buffer, spec: ArraySpec) -> tuple[V2Codec, Buffer]:
    """Return the bytes that compressor and filters of version 2 were applied to, and the rest of the codec."""
    steps = [step for step in (*(codec.filters or ()), codec.compressor) if step is not None]
    size, data = _size_of(spec), packed.as_numpy_array()
    for number, step in reversed([*enumerate(steps)]):
        unpacked = unpack(step, data, size, exact=number == 0)
        data = np.frombuffer(np.ascontiguousarray(unpacked) if isinstance(unpacked, np.ndarray) else unpacked, np.uint8)
    return replace(codec, filters=None, compressor=None), spec.prototype.buffer.from_array_like(data)


def check_codecs(codecs: Iterable[Any]) -> None:
    """Raise ValueError for a codec of an array that could run code, or whose output cannot be bounded."""
    for codec in codecs:
        if isinstance(codec, ShardingCodec):
            check_codecs((*codec.codecs, *codec.index_codecs))
        elif isinstance(codec, _NumcodecsCodec):
            check_codec(codec._codec)
        elif hasattr(codec, "codec_id"):
            check_codec(codec)
        elif not isinstance(codec, _KNOWN):
            raise ValueError(f"codec {type(codec).__name__}, expected one for numbers")


def checked(array: zarr.Array) -> zarr.Array:
    """Return `array` with a pipeline of checked codecs; raise ValueError as `check_codecs`."""
    metadata = array.metadata
    if metadata.zarr_format == 3:
        codecs: tuple[Any, ...] = tuple(metadata.codecs)
        check_codecs(codecs)
    else:
        check_codecs(codec for codec in (*(metadata.filters or ()), metadata.compressor) if codec is not None)
        codecs = (V2Codec(filters=metadata.filters, compressor=metadata.compressor),)
    reading: AsyncArray[Any] = AsyncArray(metadata, array.async_array.store_path, array.async_array.config)
    object.__setattr__(reading, "codec_pipeline", CheckedPipeline.from_codecs(codecs))
    return zarr.Array(reading)
