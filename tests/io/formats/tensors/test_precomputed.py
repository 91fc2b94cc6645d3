"""Precomputed volumes as neuroglancer's writers leave them: x, y, z, c, offsets in voxels, several scales."""

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts

from emsuite.common.errors import BadInput
from emsuite.io.volume import array_names, create_volume, fingerprint, holds_array, open_volume, rename_array

VOXELS = (np.cumsum(np.random.default_rng(0).integers(-3, 4, (20, 30, 40)), axis=2) % 256).astype(np.uint8)


def put(folder: Path, voxels: np.ndarray = VOXELS, encoding: str = "raw", key: str | None = None, **scale: Any) -> Path:
    """A scale by tensorstore's own writer; voxels (C) Z Y X. Return its folder."""
    channels = voxels.shape[0] if voxels.ndim == 4 else 1
    kind = "segmentation" if encoding == "compressed_segmentation" else "image"
    more: dict[str, Any] = {"compressed_segmentation_block_size": [8, 8, 8]} if kind == "segmentation" else {}
    more |= {"jpeg_quality": 95} if encoding == "jpeg" else {}
    size = {"size": [*voxels.shape[:-4:-1]], "chunk_size": [16, 8, 8], "encoding": encoding, "resolution": [4, 4, 40]}
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": f"{folder}/"},
        "multiscale_metadata": {"type": kind, "data_type": voxels.dtype.name, "num_channels": channels},
        "scale_metadata": size | more | ({"key": key} if key else {}) | scale,
    }
    store = ts.open(spec, create=True).result()
    store.write(voxels.T if voxels.ndim == 4 else voxels.T[..., None]).result()
    return folder


@pytest.mark.parametrize("encoding", ["raw", "png", "compressed_segmentation"])
def test_encodings_without_loss(tmp_path: Path, encoding: str) -> None:
    voxels = VOXELS.astype(np.uint64) if encoding == "compressed_segmentation" else VOXELS
    folder = put(tmp_path / "em", voxels, encoding, voxel_offset=[1, 2, 3])
    for path in (f"precomputed://{folder}", Path(f"precomputed://{folder}"), f"precomputed://{folder}/4_4_40"):
        volume = open_volume(path)
        np.testing.assert_array_equal(volume.read(), voxels)
        np.testing.assert_array_equal(volume[3:9, 20:, 5], voxels[3:9, 20:, 5])
        assert (tuple(volume.voxel_size), tuple(volume.offset)) == ((40, 4, 4), (120, 8, 4))
        assert volume.stored_block == (8, 8, 16)


def test_jpeg(tmp_path: Path) -> None:
    smooth = np.broadcast_to(np.arange(0, 200, 5, dtype=np.uint8), (20, 30, 40))
    read = open_volume(f"precomputed://{put(tmp_path / 'em', smooth, 'jpeg')}").read()
    assert np.abs(read.astype(int) - smooth).max() < 8


def test_shards(tmp_path: Path) -> None:
    sharding = {"@type": "neuroglancer_uint64_sharded_v1", "preshift_bits": 1, "minishard_bits": 1, "shard_bits": 1,
                "hash": "identity", "data_encoding": "gzip"}  # fmt: skip
    folder = put(tmp_path / "em", sharding=sharding)
    assert list(folder.glob("*/*.shard"))
    np.testing.assert_array_equal(open_volume(f"precomputed://{folder}").read(), VOXELS)


def test_channels_and_scales(tmp_path: Path) -> None:
    both = np.stack([VOXELS, VOXELS // 2])
    folder = put(tmp_path / "em.precomputed", both)
    put(folder, both[..., ::2, ::2], key="half", resolution=[8, 8, 40])
    assert array_names(folder) == ["4_4_40", "half"]
    assert tuple(open_volume(folder / "half").voxel_size) == (40, 8, 8)
    np.testing.assert_array_equal(open_volume(folder / "half").read(), both[..., ::2, ::2])
    np.testing.assert_array_equal(open_volume(folder).read(), both)
    assert holds_array(folder / "half")
    with pytest.raises(BadInput, match="has no scale 'third'; it holds 4_4_40, half"):
        open_volume(folder / "third")


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", "uint32", "uint64"])
def test_what_the_suite_writes_is_read_by_others(tmp_path: Path, kind: str) -> None:
    path, voxels = tmp_path / "em.precomputed", VOXELS.astype(kind)
    volume = create_volume(path, voxels.shape, kind, (40, 4, 4), (120, 8, 4), chunks=(8, 16, 16))
    volume.write(volume.roi, voxels)
    stored = ts.open({"driver": "neuroglancer_precomputed", "kvstore": f"file://{path}"}).result()
    np.testing.assert_array_equal(stored.read().result()[..., 0].T, voxels)
    assert [str(unit) for unit in stored.dimension_units[:3]] == ["4 nm", "4 nm", "40 nm"]
    assert [*stored.domain.inclusive_min[:3]] == [1, 2, 3]
    opened = open_volume(path)
    assert (opened.voxel_size, opened.offset) == (volume.voxel_size, volume.offset)
    before = fingerprint(path)
    rename_array(path, "4_4_40", "fine")
    assert array_names(path) == ["fine"]
    assert fingerprint(path) != before
    np.testing.assert_array_equal(open_volume(path / "fine").read(), voxels)


def test_a_container_has_one_type(tmp_path: Path) -> None:
    create_volume(tmp_path / "em.precomputed/a", (4, 4, 4), np.uint8, (8, 8, 8), (0, 0, 0))
    with pytest.raises(BadInput, match="holds uint8, expected a folder of its own for uint64"):
        create_volume(tmp_path / "em.precomputed/b", (4, 4, 4), np.uint64, (8, 8, 8), (0, 0, 0))
    with pytest.raises(BadInput, match="expected whole voxels"):
        create_volume(tmp_path / "other.precomputed", (4, 4, 4), np.uint8, (8, 8, 8), (0, 0, 3))


def test_chunks_that_are_cut_off_or_no_files(tmp_path: Path) -> None:
    folder = put(tmp_path / "em", VOXELS, "png")
    chunk, path = folder / "4_4_40/0-16_0-8_0-8", f"precomputed://{folder}"
    whole = chunk.read_bytes()
    for length in (1, 20, len(whole) // 2):
        chunk.write_bytes(whole[:length])
        with pytest.raises(BadInput, match=f"{chunk}: the chunk is damaged"):
            open_volume(path).read()
    chunk.write_bytes(b"")
    with pytest.raises(BadInput, match="is damaged: it is empty"):
        open_volume(path).read()
    chunk.unlink()
    assert not open_volume(path)[:8, :8, :16].any(), "what is missing is 0"
    os.mkfifo(chunk)
    begin = time.monotonic()
    with pytest.raises(BadInput, match="is a pipe, expected a file"):
        open_volume(path).read()
    assert time.monotonic() - begin < 5


def test_chunks_that_were_packed_by_name_are_not_taken_for_missing(tmp_path: Path) -> None:
    folder = put(tmp_path / "em")
    for chunk in (folder / "4_4_40").iterdir():
        chunk.rename(f"{chunk}.gz")
    with pytest.raises(BadInput, match=r"its chunks are \.gz files"):
        open_volume(f"precomputed://{folder}")


@pytest.mark.parametrize(
    "change", [{"scales": []}, {"scales": [{"key": 5}]}, {"scales": [{"key": "a"}]}, {"data_type": "string"},
               {"num_channels": "many"}, {"num_channels": 0}, {"@type": "neuroglancer_legacy_mesh"}], ids=str,
)  # fmt: skip
def test_odd_infos(tmp_path: Path, change: dict[str, Any]) -> None:
    info = put(tmp_path / "em") / "info"
    info.write_text(json.dumps(json.loads(info.read_text()) | change))
    with pytest.raises(BadInput):
        open_volume(f"precomputed://{tmp_path}/em").read()


def test_no_volume(tmp_path: Path) -> None:
    for path in (f"precomputed://{tmp_path}/nothing", tmp_path / "no.precomputed/8_8_8"):
        with pytest.raises(BadInput, match="no such volume"):
            open_volume(path)


def test_a_volume_is_its_finest_scale_wherever_that_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "o.precomputed"
    for key, size in (("coarse", 8), ("fine", 4)):
        create_volume(path / key, (4, 6, 8), np.uint8, (40, size, size), (0, 0, 0))
    assert [scale["key"] for scale in json.loads((path / "info").read_text())["scales"]] == ["coarse", "fine"]
    assert tuple(open_volume(path).voxel_size) == (40, 4, 4)
    assert tuple(open_volume(path / "coarse").voxel_size) == (40, 8, 8)
