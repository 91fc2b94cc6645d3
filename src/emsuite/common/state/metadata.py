"""What the documents of a volume's arrays and groups say, so that an edit is seen while the volume is read.

    x.zarr/zarr.json           attributes of the group; of its `multiscales`, how each listed array is placed
    x.zarr/s0/zarr.json        attributes of the array; shape, type and codecs

Other stages may list further arrays in a group meanwhile, or fewer, as a mask or coarser levels: they are no edit.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from emsuite.common.documents import read_json

_NAMES = frozenset({"zarr.json", ".zarray", ".zattrs", "attributes.json"})
_LEVELS_ABOVE = 4
_IMAGES = ("multiscales", "ome", "consolidated_metadata")
"""What other stages write into the documents of groups."""


def told_by(path: Path) -> dict[str, Any]:
    """Return what the documents of an input, an array or a container, say, each under a name of its own."""
    told = dict[str, Any]()
    for folder in [*path.parents][:_LEVELS_ABOVE]:
        if folder.name:
            told |= _told(folder, _documents(folder, _NAMES))
    for here, names, files in os.walk(path):
        documents = _documents(Path(here), _NAMES.intersection(files))
        told |= _told(Path(here), documents)
        if any(map(_is_array, documents.items())):
            names.clear()  # the folders below an array hold its voxels, possibly in millions of files
    return told


def _documents(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    return {name: document for name in names if isinstance(document := read_json(folder / name), Mapping)}


def _told(folder: Path, documents: Mapping[str, Any]) -> dict[str, Any]:
    told = dict[str, Any]()
    for name, document in documents.items():
        told |= _of(str(folder / name), document)
    return told


def _is_array(named: tuple[str, Mapping[str, Any]]) -> bool:
    name, document = named
    return name == ".zarray" or document.get("node_type") == "array" or "dimensions" in document


def is_told(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether no document says something else; more or less does not count, as coarser levels come and go."""
    return all(now.get(name, content) == content for name, content in earlier.items())


def _of(name: str, document: Mapping[str, Any]) -> dict[str, Any]:
    attributes = document.get("attributes", {}) if name.endswith("zarr.json") else document
    if not isinstance(attributes, Mapping):
        return {name: document}
    rest = {key: value for key, value in document.items() if key not in ("attributes", *_IMAGES)}
    told: dict[str, Any] = {name: [rest, {key: value for key, value in attributes.items() if key not in _IMAGES}]}
    newer = attributes.get("ome")
    images = (newer if isinstance(newer, Mapping) else attributes).get("multiscales")
    for image in images if isinstance(images, list) else ():
        if isinstance(image, Mapping):
            told |= {f"{name} {array}": placed for array, placed in _placed(image)}
    return told


def _placed(image: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    datasets = image.get("datasets")
    for dataset in datasets if isinstance(datasets, list) else ():
        if isinstance(dataset, Mapping):
            steps = [item.get("coordinateTransformations") for item in (dataset, image)]
            yield str(dataset.get("path")), [image.get("axes"), *steps]
