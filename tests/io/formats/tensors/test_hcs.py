"""Plates of OME-NGFF: read back, as zarr-python sees them, and as other programs write them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from emsuite.common.errors import BadInput
from emsuite.io.formats.tensors import hcs

SHAPE = (2, 2, 3, 70, 300)


def written(folder: Path, dtype: str = "uint16") -> np.ndarray:
    voxels = np.random.default_rng(0).integers(0, 200, SHAPE).astype(dtype)
    hcs.create_plate(folder, ["A/1/0", "A/1/5", "B/3/0"])
    for field in hcs.field_names(folder):
        hcs.create_image(folder / field, SHAPE, dtype, ["phase", "nuclei"], (500, 108.3, 108.3))
    image = hcs.open_image(folder / "B/3/0", "r+")
    for t, c in np.ndindex(SHAPE[:2]):
        image.write(t, c, voxels[t, c])
    return voxels


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_voxels_come_back_through_the_suite_and_zarr_python(tmp_path: Path, dtype: str) -> None:
    voxels = written(tmp_path / "plate.zarr", dtype)
    image = hcs.open_image(tmp_path / "plate.zarr/B/3/0")
    assert image.shape == SHAPE
    assert image.channels == ("phase", "nuclei")
    assert image.voxel_size_nm == (500, 108.3, 108.3)
    assert np.array_equal(image.read(1, 0), voxels[1, 0])
    assert np.array_equal(zarr.open_array(tmp_path / "plate.zarr/B/3/0/0")[:], voxels)
    assert not hcs.open_image(tmp_path / "plate.zarr/A/1/0").read(0, 0).any()


def test_documents_are_those_of_the_specification(tmp_path: Path) -> None:
    """The keys that version 0.5 asks of a plate, a well and an image."""
    written(tmp_path / "plate.zarr")

    def ome(name: str) -> dict[str, Any]:
        document = json.loads((tmp_path / "plate.zarr" / name / "zarr.json").read_text())
        assert (document["zarr_format"], document["node_type"]) == (3, "group")
        assert document["attributes"]["ome"]["version"] == "0.5"
        return document["attributes"]["ome"]

    plate = ome(".")["plate"]
    assert plate["rows"] == [{"name": "A"}, {"name": "B"}]
    assert plate["columns"] == [{"name": "1"}, {"name": "3"}]
    assert plate["wells"] == [
        {"path": "A/1", "rowIndex": 0, "columnIndex": 0}, {"path": "B/3", "rowIndex": 1, "columnIndex": 1},
    ]  # fmt: skip
    assert ome("A/1")["well"]["images"] == [{"path": "0"}, {"path": "5"}]
    (image,) = ome("B/3/0")["multiscales"]
    assert [axis["name"] for axis in image["axes"]] == list("tczyx")
    assert [axis["type"] for axis in image["axes"]] == ["time", "channel", "space", "space", "space"]
    (dataset,) = image["datasets"]
    assert dataset == {
        "path": "0",
        "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 500, 108.3, 108.3]}],
    }
    assert [channel["label"] for channel in ome("B/3/0")["omero"]["channels"]] == ["phase", "nuclei"]
    array = json.loads((tmp_path / "plate.zarr/B/3/0/0/zarr.json").read_text())
    assert array["dimension_names"] == list("tczyx")


def test_a_time_and_channel_is_one_file(tmp_path: Path) -> None:
    written(tmp_path / "plate.zarr")
    files = [path for path in (tmp_path / "plate.zarr/B/3/0/0").rglob("*") if path.is_file()]
    assert len(files) == 1 + 4


def test_images_of_labels_are_listed(tmp_path: Path) -> None:
    written(tmp_path / "plate.zarr")
    field = tmp_path / "plate.zarr/A/1/0"
    assert hcs.label_names(field) == []
    for name in ("foreground", "cells"):
        hcs.create_image(field / "labels" / name, (2, 1, 3, 70, 300), "uint8", [name], None)
    assert hcs.label_names(field) == ["cells", "foreground"]
    assert hcs.open_image(field / "labels/cells").voxel_size_nm is None


@pytest.mark.parametrize(("axes", "shape"), [("zyx", (3, 6, 8)), ("cyx", (2, 6, 8)), ("tcyx", (4, 2, 6, 8))])
def test_images_of_other_programs_with_fewer_axes(tmp_path: Path, axes: str, shape: tuple[int, ...]) -> None:
    """Version 0.4 in zarr 2, written by zarr-python alone; micrometres."""
    plate = zarr.open_group(tmp_path / "plate.zarr", mode="w", zarr_format=2)
    plate.attrs["plate"] = {"wells": [{"path": "C/2"}]}
    plate.create_group("C/2").attrs["well"] = {"images": [{"path": "0"}]}
    field = plate.create_group("C/2/0")
    scale = [{"type": "scale", "scale": [0.5] * len(axes)}]
    listed = [{"name": axis} | ({"unit": "micrometer"} if axis in "zyx" else {}) for axis in axes]
    field.attrs["multiscales"] = [{"axes": listed, "datasets": [{"path": "0", "coordinateTransformations": scale}]}]
    voxels = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    field.create_array("0", data=voxels)
    assert hcs.is_plate(tmp_path / "plate.zarr")
    assert hcs.field_names(tmp_path / "plate.zarr") == ["C/2/0"]
    image = hcs.open_image(tmp_path / "plate.zarr/C/2/0")
    lengths = dict(zip(axes, shape, strict=True))
    t, c, z, y, x = (lengths.get(axis, 1) for axis in "tczyx")
    assert image.shape == (t, c, z, y, x)
    assert np.array_equal(image.read(t - 1, c - 1), voxels.reshape(t, c, z, y, x)[t - 1, c - 1])
    assert image.voxel_size_nm == ((500 if "z" in axes else 1), 500, 500)
    assert image.channels == tuple(f"channel {n}" for n in range(c))


@pytest.mark.parametrize(
    ("image", "line"),
    [
        ({}, "no image of OME-NGFF"),
        ({"multiscales": [{"axes": [{"name": "y"}]}]}, "`multiscales` cannot be read"),
        ({"multiscales": [{"axes": [{"name": a} for a in "yxz"], "datasets": [{"path": "0"}]}]}, "axes 'yxz'"),
        (
            {"multiscales": [{"axes": [{"name": a} for a in "yx"], "datasets": [{"path": "0"}]}]},
            "axes 'yx' of an array",
        ),
    ],
)
def test_odd_images_are_refused(tmp_path: Path, image: dict[str, Any], line: str) -> None:
    group = zarr.open_group(tmp_path / "plate.zarr", mode="w")
    field = group.create_group("A/1/0")
    field.attrs["ome"] = image
    field.create_array("0", data=np.zeros((2, 3, 4)))
    with pytest.raises(BadInput, match=line):
        hcs.open_image(tmp_path / "plate.zarr/A/1/0")


def test_a_plate_without_fields_is_refused(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "plate.zarr", mode="w").attrs["plate"] = {"wells": []}
    with pytest.raises(BadInput, match="without fields"):
        hcs.field_names(tmp_path / "plate.zarr")


def test_numbers_of_times_and_slices(tmp_path: Path) -> None:
    """Beside `ome`, and only if they are others than from 0."""
    written(tmp_path / "plate.zarr")
    image, numbers = tmp_path / "plate.zarr/A/1/0", hcs.Numbers((3, 4), (5, 7, 9))
    assert hcs.open_image(image).numbers == hcs.Numbers((0, 1), (0, 1, 2))
    plain = (image / "zarr.json").read_bytes()
    hcs.create_image(image, SHAPE, "uint16", ["a", "b"], None, numbers)
    assert hcs.open_image(image).numbers == numbers
    for odd, line in (
        ({"times": [3, 4]}, "the `numbers` of its times and slices cannot be read"),
        ({"times": [3], "slices": [5, 7, 9]}, "`numbers` of 1 times, expected 2"),
        ({"times": [3, 4], "slices": [5, 5, 9]}, "`numbers` of 2 slices, expected 3"),
    ):
        document = json.loads((image / "zarr.json").read_text())
        document["attributes"]["numbers"] = odd
        (image / "zarr.json").write_text(json.dumps(document))
        with pytest.raises(BadInput, match=line):
            hcs.open_image(image)
    hcs.create_image(image, SHAPE, "uint16", ["phase", "nuclei"], (500, 108.3, 108.3), hcs.Numbers((0, 1), (0, 1, 2)))
    assert (image / "zarr.json").read_bytes() == plain
