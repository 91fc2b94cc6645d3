"""Decompression that trusts no byte of a chunk: a damaged or hostile one raises ValueError, and memory stays bounded.

The C library behind blosc reads what a chunk's header announces, not what the chunk holds; others unpack as much as
they are told to. Headers are therefore compared with the length of the chunk and of its voxels before anything is
decoded. Codecs without such a header are decoded up to the length of the voxels.
"""

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

_SLACK = 2**16  # bytes that checksums and a second compression may add
_ZSTD_BLOCK = 2**17  # a block of zstd unpacks to no more
_UNSIZED = 2**28  # bytes that a zstd frame without a declared size may unpack to at most

_PLAIN = (
    "shuffle", "delta", "astype", "bitround", "fixedscaleoffset", "quantize", "packbits",
    "crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3",
)  # fmt: skip
_BLOSC_HEADER = struct.Struct("<4B3I")
_UNSIZED_FRAME, _SKIPPABLE_FRAME, _ZSTD_FRAME = -1, 0x184D2A50, 0xFD2FB528


def check_codec(codec: Any) -> None:
    """Raise ValueError for a codec of numcodecs that could run code or whose output cannot be bounded."""
    if codec.codec_id not in (*_HEADERS, *_BOUNDED, *_PLAIN):
        raise ValueError(f"codec {codec.codec_id!r}, expected one of {', '.join((*_HEADERS, *_BOUNDED, *_PLAIN))}")
    if codec.codec_id == "shuffle" and not 1 <= codec.elementsize <= 16:
        raise ValueError(f"shuffle of elements of {codec.elementsize} bytes, expected 1 to 16")


def unpack(codec: Any, packed: Any, size: int, exact: bool) -> Any:
    """Decode bytes.

    Args:
        codec: A codec of numcodecs that `check_codec` lets pass.
        packed: The bytes, any buffer.
        size: The bytes of the voxels.
        exact: Whether `codec` yields the voxels themselves; False: another codec decodes its output.

    Returns:
        Any buffer, of `size` bytes if `exact`.

    Raises:
        ValueError: The bytes are damaged, or unpack to another size.
    """
    data = memoryview(np.ascontiguousarray(packed).data).cast("B")
    most = size if exact else 8 * size + _SLACK
    if codec.codec_id in _BOUNDED:
        unpacked = _BOUNDED[codec.codec_id](codec, data, most)
    else:
        if codec.codec_id in _HEADERS:
            _check_size(_HEADERS[codec.codec_id](data, size), most, exact, "announces")
        unpacked = codec.decode(data)
    n = unpacked.nbytes if isinstance(unpacked, np.ndarray) else len(unpacked)
    _check_size(n, most, exact, "unpacks to")
    return unpacked


def _check_size(n: int, most: int, exact: bool, what: str) -> None:
    if n == _UNSIZED_FRAME:
        return
    if n > most or (exact and n != most):
        raise ValueError(f"{what} {n:,} bytes, expected {'' if exact else 'at most '}{most:,}")


def _blosc_size(data: memoryview, _size: int) -> int:
    """Return the size that a blosc chunk announces (c-blosc, README_CHUNK_FORMAT)."""
    if len(data) < _BLOSC_HEADER.size:
        raise ValueError(f"{len(data)} bytes, fewer than the header of blosc")
    version, _, flags, itemsize, unpacked, block, packed = _BLOSC_HEADER.unpack_from(data)
    if packed != len(data):
        raise ValueError(f"holds {len(data):,} bytes, its header announces {packed:,}")
    if version not in (1, 2) or itemsize == 0 or (unpacked and not 0 < block <= unpacked):
        raise ValueError("the header of blosc makes no sense")
    blocks = 0 if flags & 2 else -(-unpacked // max(block, 1))
    if _BLOSC_HEADER.size + 4 * blocks > len(data) or (flags & 2 and unpacked and packed != unpacked + 16):
        raise ValueError(f"holds {len(data):,} bytes, too few or many for {unpacked:,} in blocks of {block:,}")
    starts = np.frombuffer(data, "<u4", blocks, _BLOSC_HEADER.size)
    if blocks and not (starts >= _BLOSC_HEADER.size + 4 * blocks).all():
        raise ValueError("a block of blosc begins within the header")
    if blocks and not (starts.astype(np.int64) + 4 <= len(data)).all():
        raise ValueError(f"a block of blosc begins behind the {len(data):,} bytes")
    return int(unpacked)


def _lz4_size(data: memoryview, _size: int) -> int:
    """Return the size that numcodecs writes before the block of LZ4."""
    if len(data) < 4:
        raise ValueError(f"{len(data)} bytes, fewer than the header of LZ4")
    return int.from_bytes(data[:4], "little")


def _zstd_size(data: memoryview, size: int) -> int:
    """Return the size that a frame announces (RFC 8878); if it announces none, what its blocks unpack to at most."""
    magic, begin = int.from_bytes(data[:4], "little"), 4
    if magic & ~0xF == _SKIPPABLE_FRAME or len(data) < 6 or magic != _ZSTD_FRAME:
        raise ValueError("no frame of zstd")
    flags = data[begin]
    single, width = flags >> 5 & 1, (0, 2, 4, 8)[flags >> 6]
    width = 1 if single and width == 0 else width
    begin += 1 + (not single) + (0, 1, 2, 4)[flags & 3]
    if width:
        return int.from_bytes(data[begin : begin + width], "little") + (256 if width == 2 else 0)
    most = _most_in_blocks(data, begin)
    if most > max(_UNSIZED, 16 * size):
        raise ValueError(f"unpacks to up to {most:,} bytes, expected {size:,}")
    return _UNSIZED_FRAME


def _most_in_blocks(data: memoryview, begin: int) -> int:
    most, last = 0, 0
    while not last and begin + 3 <= len(data):
        header = int.from_bytes(data[begin : begin + 3], "little")
        last, kind, length = header & 1, header >> 1 & 3, header >> 3
        most += length if kind < 2 else _ZSTD_BLOCK  # raw and repeated blocks say what they yield
        begin += 3 + (1 if kind == 1 else length)
    return most


def _inflate(window: int) -> Callable[[Any, memoryview, int], bytes]:
    def decode(_codec: Any, data: memoryview, most: int) -> bytes:
        return _members(lambda: zlib.decompressobj(window), data, most)

    return decode


def _bunzip(_codec: Any, data: memoryview, most: int) -> bytes:
    return _members(bz2.BZ2Decompressor, data, most)


def _unlzma(codec: Any, data: memoryview, most: int) -> bytes:
    filters = codec.filters if codec.format == lzma.FORMAT_RAW else None
    limit = None if filters else 2**28 + 16 * most
    return _members(lambda: lzma.LZMADecompressor(codec.format, limit, filters), data, most)


def _members(decoder: Callable[[], Any], data: memoryview, most: int) -> bytes:
    """Decode streams that follow each other, up to one byte more than `most`."""
    unpacked, rest = b"", data
    try:
        while len(rest) and len(unpacked) <= most:
            stream = decoder()
            unpacked += stream.decompress(rest, most + 1 - len(unpacked))
            if not stream.eof and len(unpacked) <= most:
                raise ValueError(f"ends after {len(unpacked):,} of {most:,} bytes, it is cut off")
            rest = memoryview(stream.unused_data.lstrip(b"\0"))
    except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
        raise ValueError(str(error)) from None
    return unpacked


_HEADERS: dict[str, Callable[[memoryview, int], int]] = {"blosc": _blosc_size, "zstd": _zstd_size, "lz4": _lz4_size}
_BOUNDED: dict[str, Callable[[Any, memoryview, int], bytes]] = {
    "gzip": _inflate(31),
    "zlib": _inflate(15),
    "bz2": _bunzip,
    "lzma": _unlzma,
}
