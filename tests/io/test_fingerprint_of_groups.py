"""What a group says of its array counts as the array's own: corrections are seen, those of neighbours are not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import write_array
from emsuite.data.pyramid import make_pyramid
from emsuite.io.fingerprint import is_as_seen, seen, state, told_above
from other_writers import n5, of_ngff

VOXELS = np.arange(16 * 16 * 16, dtype=np.uint8).reshape(16, 16, 16)


def edit(group: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the image that a group of zarr lists."""
    path = next(group / name for name in ("zarr.json", ".zattrs") if (group / name).is_file())
    document = json.loads(path.read_text())
    attributes = document["attributes"]["ome"] if path.name == "zarr.json" else document
    change(attributes["multiscales"][0])
    path.write_text(json.dumps(document))


def rescale(image: dict[str, Any]) -> None:
    image["datasets"][0]["coordinateTransformations"][0]["scale"] = [5.0, 5.0, 5.0]


def move(image: dict[str, Any]) -> None:
    image["datasets"][0]["coordinateTransformations"][1]["translation"] = [0.0, 0.0, 0.0]


def scale_all(image: dict[str, Any]) -> None:
    image["coordinateTransformations"] = [{"type": "scale", "scale": [2.0, 2.0, 2.0]}]


def convert(image: dict[str, Any]) -> None:
    for axis in image["axes"]:
        axis["unit"] = "micrometer"


def turn(image: dict[str, Any]) -> None:
    image["axes"].reverse()


def rename(image: dict[str, Any]) -> None:
    image["name"] = "another"


@pytest.mark.parametrize("change", [rescale, move, scale_all, convert, turn])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_edit_of_the_group_is_one_of_the_array(tmp_path: Path, version: str, change: Callable[..., None]) -> None:
    if (version, change) == ("0.5", turn):
        pytest.skip("the names of dimensions of zarr 3 contradict: nothing can be read")
    array = of_ngff(version)(tmp_path, VOXELS)
    before, kept = state(array), seen(array)
    assert is_as_seen(array, kept)
    edit(array.parent, rename)
    assert state(array) == before, "the name of the image says nothing of the voxels"
    edit(array.parent, change)
    assert state(array)[0] != before[0]
    assert not is_as_seen(array, kept)


def test_records_of_earlier_versions_do_not_know_the_place(tmp_path: Path) -> None:
    array = of_ngff("0.4")(tmp_path, VOXELS)
    assert is_as_seen(array, {"content": seen(array)["content"], "files": "of an earlier version"})


def test_a_resolution_that_a_group_of_n5_says(tmp_path: Path) -> None:
    array = n5(tmp_path, VOXELS)
    document = json.loads((array / "attributes.json").read_text())
    group = {"n5": "2.5.1", "resolution": document.pop("resolution"), "units": document.pop("units")}
    (array / "attributes.json").write_text(json.dumps(document))
    (tmp_path / "o.n5/attributes.json").write_text(json.dumps(group))
    before = state(array)[0]
    (tmp_path / "o.n5/attributes.json").write_text(json.dumps(group | {"resolution": [4, 4, 4]}))
    assert state(array)[0] != before


def test_the_arrays_of_the_suite_say_all_themselves(tmp_path: Path) -> None:
    array = tmp_path / "v.zarr/volumes/raw"
    write_array(array, VOXELS)
    before = state(array)
    make_pyramid(array, levels=1, workers=1)
    write_array(tmp_path / "v.zarr/volumes/labels", VOXELS)
    assert told_above(array) == ""
    assert state(array) == before, "a pyramid and a neighbour are no edit"


@pytest.mark.parametrize("content", ["[]", "{", '{"attributes": 5}'])
def test_odd_documents_are_told_by_those_who_read(tmp_path: Path, content: str) -> None:
    array = of_ngff("0.4")(tmp_path, VOXELS)
    (array / ".zattrs").write_text(content)
    assert state(array)[0].startswith("state:")
