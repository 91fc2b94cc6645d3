"""Documents of groups and arrays that are edited while a volume is read; what other stages add is no edit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import write_array
from emsuite.common.errors import BadInput
from emsuite.common.state.origins import Reading
from emsuite.data.pyramid import make_pyramid
from other_writers import n5, of_ngff

VOXELS = np.arange(16 * 16 * 16, dtype=np.uint8).reshape(16, 16, 16)


def edit(document: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(document.read_text())
    change(content)
    document.write_text(json.dumps(content))


def image(content: dict[str, Any]) -> dict[str, Any]:
    attributes = content["attributes"]["ome"] if "attributes" in content else content
    return attributes["multiscales"][0]


GROUPS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "axes": lambda content: image(content)["axes"].reverse(),
    "scale": lambda content: image(content)["datasets"][0]["coordinateTransformations"].pop(),
    "scale of all": lambda content: image(content).update(coordinateTransformations=[{"type": "identity"}]),
    "attribute": lambda content: content.get("attributes", content).update(units="um"),
}


@pytest.mark.parametrize("change", GROUPS)
@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("whole", [True, False])
def test_an_edit_of_a_group_is_seen(tmp_path: Path, version: str, change: str, whole: bool) -> None:
    array = of_ngff(version)(tmp_path, VOXELS)
    reading = Reading.of({"raw": array.parent if whole else array})
    reading.check()
    edit(array.parent / (".zattrs" if version == "0.4" else "zarr.json"), GROUPS[change])
    with pytest.raises(BadInput, match="was replaced or edited while it was read"):
        reading.check()


def test_an_edit_of_an_array_is_seen(tmp_path: Path) -> None:
    for path, name in ((n5(tmp_path, VOXELS), "resolution"), (write_array(tmp_path / "v.zarr/raw", VOXELS).path, "")):
        reading = Reading.of({"raw": path})
        document = path / ("attributes.json" if name else "zarr.json")
        edit(document, lambda content, of=name: (content if of else content["attributes"]).update(resolution=[1, 1, 1]))
        with pytest.raises(BadInput, match="was replaced or edited while it was read"):
            reading.check()


def test_what_the_suite_adds_is_no_edit(tmp_path: Path) -> None:
    write_array(tmp_path / "v.zarr/volumes/raw", VOXELS)
    array, container = (Reading.of({"raw": tmp_path / name}) for name in ("v.zarr/volumes/raw", "v.zarr"))
    make_pyramid(tmp_path / "v.zarr/volumes/raw", levels=1)
    write_array(tmp_path / "v.zarr/volumes/labels", VOXELS)
    array.check()
    container.check()


@pytest.mark.parametrize(
    "content", ["[]", "5", "{", '{"attributes": 5}', '{"attributes": {"ome": [], "multiscales": 3}}']
)
def test_odd_documents_are_compared_as_they_are(tmp_path: Path, content: str) -> None:
    (tmp_path / "v.zarr").mkdir()
    (tmp_path / "v.zarr/zarr.json").write_text(content)
    reading = Reading.of({"raw": tmp_path / "v.zarr/raw"})
    reading.check()
    (tmp_path / "v.zarr/zarr.json").write_text('{"attributes": {"ome": {"multiscales": [5, {"datasets": [1]}]}}}')
    Reading.of({"raw": tmp_path / "v.zarr/raw"}).check()
