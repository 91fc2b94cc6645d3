"""Formats stand behind one protocol: volumes, masks, viewers and manifests ask the registry alone."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import zarr as zarr_python

from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate
from emsuite.data.raw import open_raw
from emsuite.io.formats import hdf5, zarr
from emsuite.io.formats.base import StoredArray, WritableFormat
from emsuite.io.formats.registry import FORMATS, find_format
from emsuite.io.volume import array_names, create_volume, fingerprint, holds_array, is_writable, open_volume
from emsuite.visualization.contents import data_layers

VOXELS = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


class Remote:
    """Arrays at URLs, read only, as a server would offer them."""

    def open_array(self, container: str, name: str, mode: str) -> StoredArray:
        if container != "remote://bucket/a/b":
            raise BadInput(f"{container}: no such volume")
        return StoredArray(VOXELS, {"voxel_size": [8, 4, 4], "offset": [0, 0, 4], "kind": "mask"})

    def array_names(self, container: str) -> list[str]:
        return [""]

    def holds_array(self, container: str, name: str) -> bool:
        return container == "remote://bucket/a/b"

    def fingerprint(self, container: str, name: str) -> str:
        return f"etag:{container}"


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "remote://", Remote())


def test_a_path_leads_to_its_format() -> None:
    assert find_format("a/fib25.zarr/volumes/raw") == (zarr, "a/fib25.zarr", "volumes/raw")
    assert find_format(Path("cremi.hdf")) == (hdf5, "cremi.hdf", "")
    assert find_format("a.hdf/b.zarr/raw") == (zarr, "a.hdf/b.zarr", "raw"), "the innermost"
    for path in ("folder/raw", "remote://bucket/raw", "C:/raw"):
        with pytest.raises(BadInput, match=r"not in a \.zarr, .*, \.h5, \.hdf, .*, and no file or folder is there; "):
            find_format(path)


def test_zarr_is_written_and_hdf5_is_read() -> None:
    assert isinstance(zarr, WritableFormat)
    assert not isinstance(hdf5, WritableFormat)
    assert not isinstance(SimpleNamespace(), WritableFormat)


@pytest.mark.usefixtures("remote")
@pytest.mark.parametrize("path", ["remote://bucket/a/b", Path("remote://bucket/a/b")], ids=["text", "Path"])
def test_a_read_only_format_without_files(path: str | Path) -> None:
    volume = open_volume(path)
    assert (volume.voxel_size, volume.offset) == (Coordinate(8, 4, 4), Coordinate(0, 0, 4))
    np.testing.assert_array_equal(volume.read(), VOXELS)
    np.testing.assert_array_equal(open_volume(volume.path).read(), VOXELS)
    assert holds_array(Path(path))
    assert array_names(Path(path)) == [""]
    assert fingerprint(Path(path)) == "etag:remote://bucket/a/b"
    assert [(layer.name, layer.kind) for layer in data_layers([Path(path)])] == [("b", "mask")]
    with pytest.raises(BadInput, match="arrays are written as zarr"):
        create_volume(path, (2, 2, 2), np.uint8, (8, 8, 8), (0, 0, 0))


# ---- a container is what it holds


def write_zarr(container: Path, name: str = "volumes/raw", zarr_format: int = 2) -> Path:
    group = zarr_python.open_group(container, mode="w", zarr_format=zarr_format)  # type: ignore[arg-type]
    group.create_array(name, data=VOXELS).attrs["resolution"] = [8, 8, 8]
    return container


def write_hdf5(file: Path, userblock: int = 0) -> Path:
    with h5py.File(file, "w", userblock_size=userblock) as stream:
        stream.create_dataset("volumes/raw", data=VOXELS).attrs["resolution"] = [8, 8, 8]
    return file


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("name", ["cube", "cube.n5", "cube.2", "cube.h5", "cube.zarr"])
def test_a_folder_of_zarr_may_have_any_name(tmp_path: Path, name: str, zarr_format: int) -> None:
    container = write_zarr(tmp_path / name, zarr_format=zarr_format)
    assert find_format(container / "volumes/raw") == (zarr, str(container), "volumes/raw")
    np.testing.assert_array_equal(open_volume(container / "volumes/raw").read(), VOXELS)
    assert array_names(container) == ["volumes/raw"]
    assert is_writable(container)
    volume = create_volume(container / "volumes/mask", (2, 2, 2), np.uint8, (8, 8, 8), (0, 0, 0))
    assert volume.read().shape == (2, 2, 2)


@pytest.mark.parametrize("userblock", [0, 512, 4096])
@pytest.mark.parametrize("name", ["cube", "cube.nc", "cube.zarr", "cube.hdf"])
def test_a_file_of_hdf5_may_have_any_name(tmp_path: Path, name: str, userblock: int) -> None:
    file = write_hdf5(tmp_path / name, userblock)
    assert find_format(file / "volumes/raw") == (hdf5, str(file), "volumes/raw")
    np.testing.assert_array_equal(open_volume(file / "volumes/raw").read(), VOXELS)
    assert array_names(file) == ["volumes/raw"]
    assert not is_writable(file)


def test_links_may_have_other_names_than_their_targets(tmp_path: Path) -> None:
    write_zarr(tmp_path / "data/cube_v2")
    write_hdf5(tmp_path / "data/cremi_a")
    (tmp_path / "fib25.zarr").symlink_to(tmp_path / "data/cube_v2")
    (tmp_path / "cremi.hdf").symlink_to(tmp_path / "data/cremi_a")
    (tmp_path / "wrong.h5").symlink_to(tmp_path / "data/cube_v2")
    (tmp_path / "raw").symlink_to(tmp_path / "data/cube_v2/volumes/raw")
    for path in ("fib25.zarr/volumes/raw", "cremi.hdf/volumes/raw", "wrong.h5/volumes/raw", "raw"):
        np.testing.assert_array_equal(open_volume(tmp_path / path).read(), VOXELS)
        np.testing.assert_array_equal(open_raw(tmp_path / path, (8, 8, 8)).read(), VOXELS)


def test_an_array_without_groups(tmp_path: Path) -> None:
    zarr_python.create_array(tmp_path / "raw", data=VOXELS, zarr_format=2).attrs["resolution"] = [8, 8, 8]
    assert find_format(tmp_path / "raw") == (zarr, str(tmp_path / "raw"), "")
    np.testing.assert_array_equal(open_volume(tmp_path / "raw").read(), VOXELS)


def test_other_files_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "circle.zarr").symlink_to(tmp_path / "circle.zarr")
    (tmp_path / "empty.h5").touch()
    (tmp_path / "empty").touch()
    (tmp_path / "text.zarr").write_text("no zarr")
    (tmp_path / "folder").mkdir()
    (tmp_path / "none.h5").symlink_to(tmp_path / "nowhere")
    begin = time.monotonic()
    for name, complaint in (
        ("pipe", "a pipe, socket or device, expected a file or folder"),
        ("pipe.h5", "a pipe, socket or device, expected a file or folder"),
        ("/dev/zero", "a pipe, socket or device, expected a file or folder"),
        ("circle.zarr", "too many levels of symbolic links"),
        ("empty.h5", "cannot be read as HDF5"),
        ("empty", "not in a .zarr, .n5"),
        ("text.zarr", "no such volume; expected a zarr folder"),
        ("folder", "not in a .zarr, .n5"),
        ("none.h5", "no such volume"),
        ("x" * 5000, "file name too long"),
        ("folder/" * 2000, "file name too long"),
    ):
        for inside in ("", "volumes/raw"):
            with pytest.raises(BadInput) as error:
                open_volume(tmp_path / name / inside)
            assert complaint in str(error.value)
    assert time.monotonic() - begin < 5
