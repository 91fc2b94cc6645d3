"""Chunks that are cut off, announce other sizes or unpack to gigabytes raise ValueError before much is decoded."""

import bz2
import gzip
import lzma
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numcodecs import BZ2, LZ4, LZMA, Blosc, Delta, GZip, Pickle, Shuffle, Zlib, Zstd

from emsuite.io.formats.unpacking import check_codec, unpack

VOXELS = (np.cumsum(np.random.default_rng(0).integers(0, 4, 2**15)) % 256).astype(np.uint8)
CODECS = [
    *(Blosc(name, 5, shuffle) for name in ("lz4", "lz4hc", "blosclz", "zlib", "zstd") for shuffle in (0, 1, 2)),
    Blosc("lz4", 0),
    Zstd(3),
    Zstd(3, checksum=True),
    GZip(3),
    Zlib(3),
    LZ4(),
    BZ2(3),
    LZMA(),
    LZMA(format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 1}]),
]
each_codec = pytest.mark.parametrize("codec", CODECS, ids=str)


@each_codec
def test_whole_chunks_are_unpacked(codec: Any) -> None:
    check_codec(codec)
    assert bytes(unpack(codec, codec.encode(VOXELS), VOXELS.nbytes, True)) == VOXELS.tobytes()


@each_codec
def test_chunks_that_are_cut_off_are_refused(codec: Any) -> None:
    packed = codec.encode(VOXELS)
    for length in [
        *range(1, 40),
        *np.linspace(40, len(packed) - 1, 60).astype(int),
        *range(len(packed) - 5, len(packed)),
    ]:
        with pytest.raises((ValueError, RuntimeError)):
            unpack(codec, packed[:length], VOXELS.nbytes, True)


@each_codec
@pytest.mark.parametrize("size", [VOXELS.nbytes - 1, VOXELS.nbytes + 1, VOXELS.nbytes * 2])
def test_chunks_that_unpack_to_another_size_are_refused(codec: Any, size: int) -> None:
    with pytest.raises(ValueError, match="bytes"):
        unpack(codec, codec.encode(VOXELS), size, True)


@each_codec
def test_an_output_for_another_codec_is_limited_alone(codec: Any) -> None:
    packed = codec.encode(VOXELS)
    assert len(unpack(codec, packed, VOXELS.nbytes - 100, False)) == VOXELS.nbytes
    with pytest.raises(ValueError, match="at most"):
        unpack(codec, codec.encode(np.zeros(2**20, np.uint8)), 1000, False)


def zstd_without_a_size(blocks: int) -> bytes:
    """A frame that repeats one byte 2^17 times in each block, and does not say how often."""
    repeated = b"".join((2**17 << 3 | 1 << 1 | (n == blocks - 1)).to_bytes(3, "little") + b"\0" for n in range(blocks))
    return bytes.fromhex("28b52ffd") + bytes([0, 0x80]) + repeated


@pytest.mark.parametrize(
    ("codec", "bomb"),
    [
        (Zstd(), lambda: Zstd().encode(np.zeros(2**30, np.uint8))),
        (Zstd(), lambda: zstd_without_a_size(2**13)),
        (GZip(), lambda: gzip.compress(bytes(2**28))),
        (Zlib(), lambda: zlib.compress(bytes(2**28))),
        (BZ2(), lambda: bz2.compress(bytes(2**25))),
        (LZMA(), lambda: lzma.compress(bytes(2**26))),
        (LZ4(), lambda: (2**30).to_bytes(4, "little") + bytes(100)),
        (Blosc(), lambda: struct.pack("<4B3I", 2, 1, 33, 1, 2**30, 2**20, 16 + 4 * 2**10) + b"\x10\x10\0\0" * 2**10),
    ],
    ids=["zstd", "zstd without a size", "gzip", "zlib", "bz2", "lzma", "lz4", "blosc"],
)
def test_memory_is_bounded_by_the_size_of_the_voxels(codec: Any, bomb: Callable[[], bytes]) -> None:
    packed = bomb()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="bytes"):
            unpack(codec, packed, 2**16, True)
        assert tracemalloc.get_traced_memory()[1] < 2**24  # the dictionary of LZMA has 2^23
    finally:
        tracemalloc.stop()


def test_zstd_without_a_size_is_unpacked() -> None:
    assert len(unpack(Zstd(), zstd_without_a_size(2), 2**18, True)) == 2**18
    with pytest.raises(ValueError, match="unpacks to 262,144 bytes, expected 200,000"):
        unpack(Zstd(), zstd_without_a_size(2), 200_000, True)


def test_gzip_in_several_members_is_unpacked() -> None:
    parts = gzip.compress(b"a" * 1000) + gzip.compress(b"b" * 1000) + b"\0" * 8
    assert unpack(GZip(), parts, 2000, True) == b"a" * 1000 + b"b" * 1000


def test_headers_of_blosc_that_lie_are_refused() -> None:
    good = Blosc("lz4", 5, 1, blocksize=4096).encode(VOXELS)
    for at, value, complaint in (
        (0, 9, "makes no sense"),
        (3, 0, "makes no sense"),
        (4, len(VOXELS) * 2, "begins within"),
        (4, len(VOXELS) - 1, "makes no sense|announces 32,767 bytes"),
        (8, 0, "makes no sense"),
        (8, 2**31, "makes no sense"),
        (8, 1, "too few"),
        (12, len(good) + 1, "its header announces"),
        (16, 2**31, "begins behind"),
        (16, 3, "begins within"),
    ):
        bad = bytearray(good)
        bad[at : at + (1 if at < 4 else 4)] = value.to_bytes(1 if at < 4 else 4, "little")
        with pytest.raises(ValueError, match=complaint):
            unpack(Blosc(), bytes(bad), VOXELS.nbytes, True)


def test_codecs_that_run_code_or_have_no_bound_are_refused() -> None:
    for harmless in (Delta("u1"), Shuffle(4)):
        check_codec(harmless)
    with pytest.raises(ValueError, match="codec 'pickle', expected one of blosc"):
        check_codec(Pickle())
    with pytest.raises(ValueError, match="elements of 0 bytes"):
        check_codec(Shuffle(0))
