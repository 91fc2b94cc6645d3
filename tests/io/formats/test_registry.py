"""Formats stand behind one protocol: volumes, masks, viewers and manifests ask the registry alone."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from funlib.geometry import Coordinate

from emsuite.common.errors import BadInput
from emsuite.io.formats import hdf5, zarr
from emsuite.io.formats.base import StoredArray, WritableFormat
from emsuite.io.formats.registry import FORMATS, find_format
from emsuite.io.volume import array_names, create_volume, fingerprint, holds_array, open_volume
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
        with pytest.raises(BadInput, match=r"not in a \.zarr, \.h5, \.hdf or \.hdf5 container"):
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
