"""Damaged chunks: one line that names the file, never a crash, never a chunk of another length.

The damage is done in processes of their own, because the C libraries that decode chunks end Python where they fail.
"""

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from numcodecs.abc import Codec
from zarr.codecs import BloscCodec, BytesCodec, ShardingCodec, ZstdCodec

from emsuite.common.errors import BadInput
from emsuite.io.volume import create_volume, open_volume

VOXELS = (np.cumsum(np.random.default_rng(0).integers(-3, 4, (32, 32, 32)), axis=2) % 256).astype(np.uint8)
KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "blosc": (2, {"compressors": numcodecs.Blosc("lz4", 5, 1)}),
    "blosc of zstd": (2, {"compressors": numcodecs.Blosc("zstd", 5, 2)}),
    "stored by blosc": (2, {"compressors": numcodecs.Blosc("lz4", 0, 0)}),
    "zstd": (2, {"compressors": numcodecs.Zstd(3)}),
    "gzip": (2, {"compressors": numcodecs.GZip(3)}),
    "lz4": (2, {"compressors": numcodecs.LZ4()}),
    "delta and zlib": (2, {"compressors": numcodecs.Zlib(3), "filters": [numcodecs.Delta("u1")]}),
    "none": (2, {"compressors": None}),
    "v3 zstd": (3, {}),
    "v3 blosc": (3, {"compressors": BloscCodec(cname="lz4")}),
    "shards": (3, {"chunks": (16, 16, 16), "shards": (32, 32, 32)}),
    "raw shards": (3, {"chunks": (16, 16, 16), "shards": (32, 32, 32), "compressors": None}),
}
DAMAGE = """
import sys, warnings
from pathlib import Path
import numpy as np
from emsuite.common.errors import BadInput
from emsuite.io.volume import open_volume

path, chunk, spots = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
random, good = np.random.default_rng(1), chunk.read_bytes()
volume = open_volume(path)
whole, refused = volume.read(), 0
for spot in range(spots):
    damaged = bytearray(good)
    if cut := spot % 2 == 0:
        near_end = len(good) - int(random.integers(1, 60))
        del damaged[near_end if spot % 4 else int(random.integers(len(good))) :]
    else:  # anywhere, in the header, or in an index at the end
        at = [random.integers(len(good)), random.integers(32), len(good) - 1 - random.integers(140)][spot % 3]
        damaged[at] ^= 1 << random.integers(8)
    chunk.write_bytes(damaged)
    try:
        voxels = volume.read()
        assert not cut, (spot, len(damaged))
        assert voxels.shape == whole.shape
    except BadInput as error:
        assert str(chunk) in str(error), error
        refused += 1
chunk.write_bytes(good)
assert np.array_equal(volume.read(), whole)
print("refused", refused)
"""


def store(path: Path, kind: str) -> tuple[Path, Path]:
    """An array in one file, and that file."""
    zarr_format, options = KINDS[kind]
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    array = group.create_array("raw", shape=VOXELS.shape, dtype="u1", **{"chunks": VOXELS.shape} | options)
    array[...] = VOXELS
    array.attrs["resolution"] = [8, 8, 8]
    metadata = (".zarray", ".zattrs", "zarr.json")
    (chunk,) = (file for file in (path / "raw").rglob("*") if file.is_file() and file.name not in metadata)
    return path / "raw", chunk


@pytest.mark.parametrize("kind", KINDS)
def test_damage_in_random_spots(tmp_path: Path, kind: str) -> None:
    path, chunk = store(tmp_path / "v.zarr", kind)
    command = [sys.executable, "-X", "faulthandler", "-c", DAMAGE, path, chunk, "200"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout.split()[-1]) >= 100, "all that were cut off"


@pytest.mark.parametrize("kind", KINDS)
def test_whole_chunks_and_parts_of_them_are_read_and_written(tmp_path: Path, kind: str) -> None:
    path, _ = store(tmp_path / "v.zarr", kind)
    volume = open_volume(path, "r+")
    np.testing.assert_array_equal(volume.read(), VOXELS)
    np.testing.assert_array_equal(volume[3:9, 20:, :5], VOXELS[3:9, 20:, :5])
    volume.array[1:3, :, 5:] = 7
    expected = VOXELS.copy()
    expected[1:3, :, 5:] = 7
    np.testing.assert_array_equal(open_volume(path).read(), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read(), expected)


@pytest.mark.parametrize("kind", ["blosc", "v3 zstd", "shards"])
def test_an_empty_chunk_is_refused(tmp_path: Path, kind: str) -> None:
    path, chunk = store(tmp_path / "v.zarr", kind)
    chunk.write_bytes(b"")
    with pytest.raises(BadInput, match=f"{chunk}: is damaged: it is empty"):
        open_volume(path).read()


@pytest.mark.parametrize("kind", ["blosc", "v3 zstd", "shards"])
def test_a_chunk_that_is_missing_is_empty(tmp_path: Path, kind: str) -> None:
    path, chunk = store(tmp_path / "v.zarr", kind)
    chunk.unlink()
    assert not open_volume(path).read().any()


@pytest.mark.parametrize("kind", ["blosc", "v3 zstd", "shards"])
def test_a_pipe_for_a_chunk_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path, chunk = store(tmp_path / "v.zarr", kind)
    chunk.unlink()
    os.mkfifo(chunk)
    begin = time.monotonic()
    with pytest.raises(BadInput, match="is a pipe, expected a file"):
        open_volume(path).read()
    assert time.monotonic() - begin < 5


def test_a_damaged_chunk_is_refused_where_a_part_of_it_is_written(tmp_path: Path) -> None:
    path, chunk = store(tmp_path / "v.zarr", "blosc")
    chunk.write_bytes(chunk.read_bytes()[:-9])
    volume = open_volume(path, "r+")
    with pytest.raises(BadInput, match=f"{chunk}: the chunk is damaged: holds"):
        volume.array[0] = 1


def test_chunks_in_the_suites_own_arrays_are_checked(tmp_path: Path) -> None:
    volume = create_volume(tmp_path / "v.zarr/raw", VOXELS.shape, np.uint8, (8, 8, 8), (0, 0, 0))
    volume.write(volume.roi, VOXELS)
    chunk = tmp_path / "v.zarr/raw/c/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-3])
    with pytest.raises(BadInput, match=f"{chunk}: the chunk is damaged"):
        volume.read()


def test_a_shard_whose_index_has_no_checksum(tmp_path: Path) -> None:
    sharding = ShardingCodec(chunk_shape=(16,) * 3, codecs=[BytesCodec(), ZstdCodec()], index_codecs=[BytesCodec()])
    path = tmp_path / "v.zarr/raw"
    array = zarr.create_array(
        path, shape=VOXELS.shape, dtype="u1", chunks=VOXELS.shape, serializer=sharding, compressors=None
    )
    array[...] = VOXELS
    array.attrs["resolution"] = [8, 8, 8]
    shard = path / "c/0/0/0"
    whole, index = shard.read_bytes(), 8 * 16
    for begin, length, complaint in ((2**63, 5, "cannot be"), (5, 2**64 - 1, "cannot be"), (10, 0, "cannot be")):
        entry = begin.to_bytes(8, "little") + length.to_bytes(8, "little")
        shard.write_bytes(whole[:-index] + entry + whole[16 - index :])
        for region in ((slice(None),) * 3, (slice(0, 4),) * 3):
            with pytest.raises(BadInput, match=f"{shard}.*{complaint}"):
                open_volume(path)[region]
    entry = (2**40).to_bytes(8, "little") + (2**50).to_bytes(8, "little")
    shard.write_bytes(whole[:-index] + entry + whole[16 - index :])
    for region in ((slice(None),) * 3, (slice(0, 4),) * 3):
        with pytest.raises(BadInput, match=f"{shard}.*damaged"):
            open_volume(path)[region]


class _Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("place", ["filters", "compressor"])
def test_no_chunk_runs_code(tmp_path: Path, place: str) -> None:
    path, chunk = store(tmp_path / "v.zarr", "none")
    text = (path / ".zarray").read_text()
    codec = '{"id": "pickle"}'
    new = f'"filters": [{codec}]' if place == "filters" else f'"compressor": {codec}'
    (path / ".zarray").write_text(text.replace(f'"{place}": null', new))
    chunk.write_bytes(pickle.dumps(_Touch(tmp_path / "touched")))
    with pytest.raises(BadInput, match=r"its metadata cannot be read: .*pickle"):
        open_volume(path).read()
    assert not (tmp_path / "touched").exists()


def test_every_codec_of_a_chain_is_bounded(tmp_path: Path) -> None:
    chain: list[Codec] = [numcodecs.Zstd(1), numcodecs.GZip(1)]
    group = zarr.open_group(tmp_path / "v.zarr", mode="w", zarr_format=2)
    array = group.create_array(
        "raw", shape=(32,) * 3, dtype="u1", chunks=(32,) * 3, filters=chain, compressors=numcodecs.Blosc("lz4")
    )
    array.attrs["resolution"] = [8, 8, 8]
    packed = np.zeros(2**26, np.uint8)
    for codec in (*chain, numcodecs.Blosc("lz4")):
        packed = codec.encode(packed)
    (tmp_path / "v.zarr/raw/0.0.0").write_bytes(packed)
    with pytest.raises(BadInput, match=r"0\.0\.0: the chunk is damaged: announces 67,108,864 bytes, expected 32,768"):
        open_volume(tmp_path / "v.zarr/raw").read()
