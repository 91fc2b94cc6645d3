"""The documents that the suite writes, against the specification's schema, and read by other programs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import zarr

from emsuite.common.errors import BadInput
from emsuite.io.volume import array_names, create_volume, open_volume, rename_array

SIZE, OFFSET = (40, 8, 4), (400, -8, 12)
each_version = pytest.mark.parametrize("zarr_format", [2, 3])


def check_image(image: Any, version: str) -> None:
    """Raise AssertionError for an image that is none by the schema of OME-NGFF 0.4 or 0.5, `image.schema`, strict.

    https://ngff.openmicroscopy.org/0.5/schemas/image.schema and /0.4/, and the rules of the text behind them.
    """
    assert isinstance(image, dict)
    assert isinstance(image["name"], str), "strict: SHOULD have a name"
    assert ("version" in image) == (version == "0.4"), "0.5 says it once, for the group"
    assert image.get("version", version) == version
    axes = image["axes"]
    assert isinstance(axes, list)
    assert 2 <= len(axes) <= 5
    names = [axis["name"] for axis in axes]
    assert len(set(names)) == len(names)
    kinds = [axis["type"] for axis in axes]
    assert all(set(axis) <= {"name", "type", "unit"} for axis in axes)
    assert kinds.count("space") in (2, 3)
    assert kinds.count("time") <= 1
    assert kinds.count("channel") <= 1
    assert kinds == sorted(kinds, key=["time", "channel", "space"].index), "time, then channel, then space"
    spatial = [axis["name"] for axis in axes if axis["type"] == "space"]
    assert spatial == ["z", "y", "x"][-len(spatial) :]
    assert all(axis["unit"] == "nanometer" for axis in axes if axis["type"] == "space"), "a unit of UDUNITS-2"
    assert isinstance(image["datasets"], list)
    assert image["datasets"]
    paths = [dataset["path"] for dataset in image["datasets"]]
    assert all(isinstance(path, str) and path and ".." not in path for path in paths)
    assert len(set(paths)) == len(paths)
    finest = 0.0
    for dataset in image["datasets"]:
        steps = dataset["coordinateTransformations"]
        assert [step["type"] for step in steps] in (["scale"], ["scale", "translation"])
        for step in steps:
            numbers = step[step["type"]]
            assert set(step) == {"type", step["type"]}
            assert len(numbers) == len(axes)
            assert all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers)
        assert min(steps[0]["scale"]) > 0
        assert sum(steps[0]["scale"]) > finest, "from the finest to the coarsest"
        finest = sum(steps[0]["scale"])


def check_group(group: Path) -> list[dict[str, Any]]:
    """Return the images of a group, all of them valid, with the arrays that they say; read by no code of the suite."""
    newer = (group / "zarr.json").exists()
    document = json.loads((group / ("zarr.json" if newer else ".zattrs")).read_text())
    if newer:
        assert (document["zarr_format"], document["node_type"]) == (3, "group")
        assert document["attributes"]["ome"]["version"] == "0.5"
    images: list[dict[str, Any]] = (document["attributes"]["ome"] if newer else document)["multiscales"]
    assert images
    for image in images:
        check_image(image, "0.5" if newer else "0.4")
        for dataset in image["datasets"]:
            array = zarr.open_array(group / dataset["path"], mode="r")
            assert array.ndim == len(image["axes"])
            if newer:
                assert list(array.metadata.dimension_names) == [axis["name"] for axis in image["axes"]]  # type: ignore[union-attr]
            else:
                metadata = json.loads((group / dataset["path"] / ".zarray").read_text())
                assert metadata["dimension_separator"] == "/"
    return images


def by_tensorstore(array: Path) -> np.ndarray:
    driver = "zarr3" if (array / "zarr.json").exists() else "zarr"
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{array}/"}}
    return np.asarray(tensorstore.open(spec, read=True).result().read().result())


@each_version
def test_arrays_carry_the_metadata_of_an_image(tmp_path: Path, zarr_format: Any) -> None:
    container = tmp_path / "v.zarr"
    voxels = np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6)
    raw = create_volume(container / "volumes/raw", (4, 5, 6), np.uint16, SIZE, OFFSET, zarr_format=zarr_format, of="me")
    raw.array[...] = voxels
    create_volume(container / "volumes/affs", (3, 4, 5, 6), np.uint8, SIZE, OFFSET)
    create_volume(container / "volumes/section", (5, 6), np.uint8, (8, 4), (0, 0))
    images = {image["name"]: image for image in check_group(container / "volumes")}
    assert set(images) == {"raw", "affs", "section"}
    assert images["raw"]["datasets"][0]["path"] == "raw"
    scale, translation = images["affs"]["datasets"][0]["coordinateTransformations"]
    assert (scale["scale"], translation["translation"]) == ([1, *SIZE], [0, *OFFSET])
    np.testing.assert_array_equal(by_tensorstore(container / "volumes/raw"), voxels)
    again = open_volume(container / "volumes/raw")
    assert (tuple(again.voxel_size), tuple(again.offset), again.attributes["of"]) == (SIZE, OFFSET, "me")
    assert again.attributes["resolution"] == list(SIZE), "the attributes of before"


@each_version
def test_the_metadata_of_the_group_alone_say_where_the_array_lies(tmp_path: Path, zarr_format: Any) -> None:
    path = create_volume(tmp_path / "v.zarr/raw", (4, 5, 6), np.uint8, SIZE, OFFSET, zarr_format=zarr_format).path
    array = zarr.open_array(path, mode="r+")
    for key in list(array.attrs):
        del array.attrs[key]
    volume = open_volume(path)
    assert (tuple(volume.voxel_size), tuple(volume.offset)) == (SIZE, OFFSET)


@each_version
def test_an_array_that_is_replaced_or_renamed_is_listed_once(tmp_path: Path, zarr_format: Any) -> None:
    container = tmp_path / "v.zarr"
    for shape in ((4, 5, 6), (7, 5, 6)):
        create_volume(container / "a/one", shape, np.uint8, SIZE, OFFSET, zarr_format=zarr_format)
    create_volume(container / "a/two", (4, 5, 6), np.uint8, (8, 8, 8), OFFSET)
    assert [image["name"] for image in check_group(container / "a")] == ["one", "two"]
    rename_array(container, "a/two", "a/one")
    images = check_group(container / "a")
    assert [(image["name"], image["datasets"][0]["path"]) for image in images] == [("one", "one")]
    assert images[0]["datasets"][0]["coordinateTransformations"][0]["scale"] == [8, 8, 8]
    (container / "b").mkdir()
    assert array_names(container) == ["a/one"]


@each_version
def test_what_others_wrote_into_the_group_stays(tmp_path: Path, zarr_format: Any) -> None:
    group = zarr.open_group(tmp_path / "v.zarr", mode="w", zarr_format=zarr_format)
    theirs = {"name": "theirs", "axes": [], "datasets": [{"path": "0"}]}
    content = {"multiscales": [theirs], "omero": {"channels": []}}
    group.attrs.update({"mine": 1} | ({"ome": {"version": "0.5", **content}} if zarr_format == 3 else content))
    create_volume(tmp_path / "v.zarr/raw", (4, 5, 6), np.uint8, SIZE, OFFSET)
    attributes = dict(zarr.open_group(tmp_path / "v.zarr", mode="r").attrs)
    owner: Any = attributes["ome"] if zarr_format == 3 else attributes
    assert attributes["mine"] == 1
    assert owner["omero"] == {"channels": []}
    assert [image["name"] for image in owner["multiscales"]] == ["theirs", "raw"]
    assert owner["multiscales"][0] == theirs


@pytest.mark.parametrize("odd", [5, "a", {"a": 1}, [5]])
def test_documents_that_are_none_are_left_alone(tmp_path: Path, odd: Any) -> None:
    group = zarr.open_group(tmp_path / "v.zarr", mode="w", zarr_format=3)
    for ome in ({"multiscales": odd}, odd):
        group.attrs["ome"] = ome
        create_volume(tmp_path / "v.zarr/raw", (4, 5, 6), np.uint8, SIZE, OFFSET)
        assert open_volume(tmp_path / "v.zarr/raw").shape == (4, 5, 6)


def test_a_group_with_one_image_is_this_image(tmp_path: Path) -> None:
    container = tmp_path / "v.zarr"
    create_volume(container / "volumes/raw", (4, 5, 6), np.uint8, SIZE, OFFSET)
    assert open_volume(container / "volumes").shape == (4, 5, 6)
    create_volume(container / "volumes/mask", (4, 5, 6), np.uint8, SIZE, OFFSET)
    with pytest.raises(BadInput, match=r"is a group, expected an array; it holds volumes/mask, volumes/raw"):
        open_volume(container / "volumes")


@each_version
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_listings_hold_the_metadata_too(tmp_path: Path, zarr_format: Any) -> None:
    container = tmp_path / "v.zarr"
    create_volume(container / "raw", (4, 5, 6), np.uint8, SIZE, OFFSET, zarr_format=zarr_format)
    zarr.consolidate_metadata(container)
    create_volume(container / "mask", (4, 5, 6), np.uint8, SIZE, OFFSET)
    listed: Any = dict(zarr.open_group(container, mode="r", use_consolidated=True).attrs)
    images = (listed["ome"] if zarr_format == 3 else listed)["multiscales"]
    assert [image["name"] for image in images] == ["raw", "mask"]
