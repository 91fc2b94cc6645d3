"""Voxels of zarr through tensorstore: the same arrays as zarr-python's, whole files, and what is left to it."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec

from emsuite.io.formats.tensors import store
from emsuite.io.formats.tensors.zarr_voxels import TensorZarr
from emsuite.io.volume import create_volume, open_volume

VOXELS = (np.cumsum(np.random.default_rng(0).integers(-3, 4, (3, 20, 30, 40)), axis=-1) % 256).astype(np.uint8)
LAYOUTS = [(2, None), (3, None), (3, (3, 16, 16, 16))]
each_layout = pytest.mark.parametrize(("version", "shards"), LAYOUTS)


def new(path: Path, version: Any = 3, shards: Any = (3, 16, 16, 16), dtype: Any = np.uint8) -> Any:
    return create_volume(path / "v.zarr/affs", VOXELS.shape, dtype, (8,) * 3, (0,) * 3, (3, 8, 8, 8), version, shards)


def refuse(*_: Any) -> None:
    raise AssertionError("zarr-python was asked")


def files(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@each_layout
@pytest.mark.parametrize("dtype", ["u1", "<u8", ">u2", "f2", "f4", "f8", "i4", "?"])
def test_zarr_python_reads_what_tensorstore_writes(tmp_path: Path, version: Any, shards: Any, dtype: str) -> None:
    volume = new(tmp_path, version, shards, np.dtype(dtype))
    volume.write(volume.roi, VOXELS)
    by_others = zarr.open_array(tmp_path / "v.zarr/affs", mode="r")[...]
    np.testing.assert_array_equal(by_others, VOXELS.astype(dtype))
    np.testing.assert_array_equal(open_volume(tmp_path / "v.zarr/affs").read(), VOXELS.astype(dtype))
    assert not [name for name in files(tmp_path) if "lock" in name]


@each_layout
def test_whole_blocks_and_the_ends_of_axes_are_written_by_tensorstore_alone(
    tmp_path: Path, version: Any, shards: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = new(tmp_path, version, shards)
    volume.array[...] = 7
    chunks = [path for path in (tmp_path / "v.zarr/affs").rglob("*") if path.is_file() and path.suffix != ".json"]
    for chunk in chunks:
        if not chunk.name.startswith(".z"):
            chunk.write_bytes(b"garbage that nobody reads")
    monkeypatch.setattr(zarr.Array, "__setitem__", refuse)
    for part in (np.s_[:, :16], np.s_[:, 16:, :16], np.s_[:, 16:, 16:, :32], np.s_[:, 16:, 16:, 32:]):
        volume.array[part] = VOXELS[part]
    monkeypatch.setattr(zarr.Array, "__getitem__", refuse)
    np.testing.assert_array_equal(open_volume(tmp_path / "v.zarr/affs").read(), VOXELS)


@each_layout
def test_parts_of_blocks_and_odd_indices(tmp_path: Path, version: Any, shards: Any) -> None:
    volume, expected = new(tmp_path, version, shards), np.zeros_like(VOXELS)
    for part in (
        np.s_[:, 3:9, 20:],
        np.s_[1],
        np.s_[..., ::2],
        np.s_[2, -1, :, 5],
        np.s_[:, :16, :16, :16],
        np.s_[0:0],
    ):
        volume.array[part] = VOXELS[part]
        expected[part] = VOXELS[part]
        np.testing.assert_array_equal(volume.array[...], expected)
        np.testing.assert_array_equal(volume.array[part], expected[part])
    np.testing.assert_array_equal(volume.array[:, 16:][:, ::-1], expected[:, 16:][:, ::-1])


def test_the_same_bytes_in_any_order_and_no_file_for_nothing(tmp_path: Path) -> None:
    first, second = new(tmp_path / "a"), new(tmp_path / "b")
    first.write(first.roi, VOXELS)
    for y in (16, 0):
        for x in (32, 0, 16):
            part = np.s_[:, :, y : y + 16, x : x + 16]
            second.array[part] = VOXELS[part]
    assert files(tmp_path / "a") == files(tmp_path / "b")
    first.array[...] = 0
    assert set(files(tmp_path / "a")) == {"v.zarr/zarr.json", "v.zarr/affs/zarr.json"}


def test_blosc_in_shards_and_filters_are_read_by_zarr_python(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "v.zarr", mode="w", zarr_format=3)
    options: Any = {"chunks": (3, 8, 8, 8), "shards": (3, 16, 16, 16), "compressors": BloscCodec(cname="lz4")}
    array = group.create_array("raw", shape=VOXELS.shape, dtype="u1", **options)
    array.attrs["resolution"] = [8, 8, 8]
    volume = open_volume(tmp_path / "v.zarr/raw", "r+")
    assert isinstance(volume.array, TensorZarr)
    assert not volume.array._reads
    volume.write(volume.roi, VOXELS)
    np.testing.assert_array_equal(volume.read(), VOXELS)


def test_a_forked_process_reads_and_writes(tmp_path: Path) -> None:
    volume = new(tmp_path)
    volume.write(volume.roi, VOXELS)
    assert store.is_usable()
    child = os.fork()
    if child == 0:
        good = not store.is_usable() and np.array_equal(volume.read(), VOXELS)
        volume.write(volume.roi, VOXELS + 1)
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(volume.read(), VOXELS + 1)


def test_arrays_are_sent_to_other_processes(tmp_path: Path) -> None:
    volume = new(tmp_path)
    volume.write(volume.roi, VOXELS)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read(), VOXELS)


def test_a_disk_without_permission(tmp_path: Path) -> None:
    volume = new(tmp_path)
    volume.write(volume.roi, VOXELS)
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (tmp_path / "v.zarr/affs/c/0/0/0").chmod(0o500)
    with pytest.raises(PermissionError):
        volume.write(volume.roi, VOXELS)
