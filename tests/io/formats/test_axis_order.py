"""Arrays whose axes are stored in any order are read, and written, as (c), z, y, x."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from emsuite.common.errors import BadInput
from emsuite.io.formats.axis_order import OrderedArray
from emsuite.io.volume import open_volume

ZYX = np.arange(4 * 6 * 5, dtype=np.uint16).reshape(4, 6, 5)
CZYX = np.stack([ZYX, ZYX + 500])
SCALE = {"t": 1.5, "c": 1, "z": 0.04, "y": 8, "x": 4}
START = {"t": 0, "c": 0, "z": 0.4, "y": -8, "x": 12}
UNITS = {"t": "second", "z": "micrometer", "y": "nanometer", "x": "nanometer"}
KINDS = {"t": "time", "c": "channel"}


def image_of(folder: Path, order: str, voxels: np.ndarray, version: str, levels: int = 1) -> Path:
    """An image of OME-NGFF as other programs write it: a container that is the image, arrays 0, 1, ... in it."""
    newer = version == "0.5"
    root = zarr.open_group(folder / "plate.ome.zarr", mode="w", zarr_format=3 if newer else 2)
    datasets = []
    for level in range(levels):
        name, every = str(level), tuple(slice(None, None, 2**level if axis in "zyx" else None) for axis in order)
        root.create_array(name, data=voxels[every], chunks=tuple(min(3, n) for n in voxels[every].shape))
        scale = [SCALE[axis] * (2**level if axis in "zyx" else 1) for axis in order]
        shift = [START[axis] + (SCALE[axis] * (2**level - 1) / 2 if axis in "zyx" else 0) for axis in order]
        steps = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": shift}]
        datasets.append({"path": name, "coordinateTransformations": steps})
    axes = [{"name": a, "type": KINDS.get(a, "space")} | ({"unit": UNITS[a]} if a in UNITS else {}) for a in order]
    image = {"axes": axes, "datasets": datasets, "name": "plate"} | ({} if newer else {"version": "0.4"})
    root.attrs.update({"ome": {"version": "0.5", "multiscales": [image]}} if newer else {"multiscales": [image]})
    return folder / "plate.ome.zarr"


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("order", ["zyx", "xyz", "yxz", "czyx", "zyxc", "xyzc", "tczyx", "tzyx", "zyxct"])
def test_an_image_in_any_order_is_read_in_order(tmp_path: Path, order: str, version: str) -> None:
    seen = CZYX if "c" in order else ZYX
    stored = seen[None] if "t" in order else seen
    names = ("t" if "t" in order else "") + ("czyx" if "c" in order else "zyx")
    container = image_of(tmp_path, order, stored.transpose([names.index(axis) for axis in order]), version)
    for path in (container, container / "0"):
        volume = open_volume(path)
        assert tuple(volume.voxel_size) == (40, 8, 4)
        assert tuple(volume.offset) == (400, -8, 12)
        assert (volume.shape, volume.dtype, volume.array.ndim) == (seen.shape, np.uint16, seen.ndim)
        assert len(volume.stored_block) == seen.ndim
        np.testing.assert_array_equal(volume.read(), seen)
        np.testing.assert_array_equal(volume[..., 1:3, 2:, 1:4], seen[..., 1:3, 2:, 1:4])
    assert open_volume(container).read(volume.roi.grow(-volume.voxel_size, -volume.voxel_size)).shape[-3:] == (2, 4, 3)


def test_an_image_of_one_channel_and_one_time_has_three_axes(tmp_path: Path) -> None:
    volume = open_volume(image_of(tmp_path, "tczyx", ZYX[None, None], "0.4"))
    assert volume.channels is None
    np.testing.assert_array_equal(volume.read(), ZYX)
    array = zarr.open_array(tmp_path / "plate.ome.zarr/0", mode="r+")
    array.attrs["voxel_size"] = [40, 8, 4]
    assert open_volume(tmp_path / "plate.ome.zarr/0").shape == (1, *ZYX.shape), "an array of the suite keeps its axis"


def test_levels_begin_where_the_finest_begins(tmp_path: Path) -> None:
    container = image_of(tmp_path, "zyx", ZYX, "0.5", levels=2)
    coarse = open_volume(container / "1")
    assert (tuple(coarse.voxel_size), tuple(coarse.offset)) == ((80, 16, 8), (400, -8, 12))
    np.testing.assert_array_equal(coarse.read(), ZYX[::2, ::2, ::2])


@pytest.mark.parametrize(
    ("order", "voxels", "complaint"),
    [("tzyx", CZYX, "axes t, z, y, x of (2, 4, 6, 5) voxels, expected one point of time")],
)
def test_more_than_one_time_is_refused(tmp_path: Path, order: str, voxels: np.ndarray, complaint: str) -> None:
    with pytest.raises(BadInput) as error:
        open_volume(image_of(tmp_path, order, voxels, "0.5"))
    assert complaint in str(error.value)


def test_attributes_that_say_different_orders_are_refused(tmp_path: Path) -> None:
    root = zarr.open_group(tmp_path / "v.zarr", mode="w", zarr_format=3)
    array = root.create_array("raw", data=ZYX, dimension_names=("x", "y", "z"))
    array.attrs.update({"voxel_size": [4, 8, 40], "axis_names": ["z", "y", "x"]})
    with pytest.raises(BadInput, match="dimension_names says the axes are x, y, z, but 'axis_names' says z, y, x"):
        open_volume(tmp_path / "v.zarr/raw")


@pytest.mark.parametrize("axes", [*itertools.permutations(range(3)), (2, 1), (1, 2)])
def test_reading_and_writing_equal_a_transposed_array(axes: tuple[int, ...]) -> None:
    source = ZYX.copy() if len(axes) == 3 else ZYX[:1].copy()
    twin = source.copy()
    expected = twin.transpose(axes) if len(axes) == 3 else twin[0].transpose(np.argsort(np.argsort(axes)))
    view = OrderedArray(source, axes)
    assert view.shape == expected.shape
    indices: list[Any] = [..., (slice(1, 3),), (slice(None), 2), 1, -1, (..., slice(1, None, 2)), (slice(1, 2), ..., 3)]
    for number, index in enumerate(indices):
        np.testing.assert_array_equal(view[index], expected[index])
        view[index] = expected[index] = number
        np.testing.assert_array_equal(source, twin)
        new = np.arange(expected[index].size, dtype=np.uint16).reshape(expected[index].shape)
        view[index], expected[index] = new, new
        np.testing.assert_array_equal(source, twin)
