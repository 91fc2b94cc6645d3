"""What the documents of a volume's arrays and groups say, so that an edit is seen while the volume is read.

    x.zarr/zarr.json           attributes of the group; of its `multiscales`, how each listed array is placed
    x.zarr/s0/zarr.json        attributes of the array; shape, type and codecs

Other stages may list further arrays in a group meanwhile, or fewer, as a mask or coarser levels: they are no edit.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from emsuite.common.documents import read_json

_NAMES = frozenset({"zarr.json", ".zarray", ".zattrs", "attributes.json"})
_LEVELS_ABOVE = 4
_IMAGES = ("multiscales", "ome", "consolidated_metadata")
"""What other stages write into the documents of groups."""


def told_by(path: Path, files: Iterable[Path]) -> dict[str, Any]:
    """Return what the documents of an input say, each under a name of its own.

    Args:
        path: the input, an array or a container.
        files: those below it; those that are no documents are left out.
    """
    above = [folder / name for folder in [*path.parents][:_LEVELS_ABOVE] for name in _NAMES if folder.name]
    told = dict[str, Any]()
    for file in (*(file for file in files if file.name in _NAMES), *above):
        document = read_json(file)
        if isinstance(document, Mapping):
            told |= _of(str(file), document)
    return told


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
