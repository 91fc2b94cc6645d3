"""OME-NGFF: the document in which a group of zarr says the axes, the positions and the pyramids of its arrays.

    x.zarr/volumes                 the group: `multiscales` has one image for each array that the suite wrote here
    x.zarr/volumes/raw             the array, level 0 of the image `raw`; its own attributes stay as they are
    x.zarr/volumes/raw_levels/1    level 1, if there is a pyramid, and so on

Groups of zarr 3 get version 0.5 (the attribute `ome`), groups of zarr 2 version 0.4. Images that other programs listed
in the group stay, and so do the other attributes.

The translation of the finest level is the offset of the array. Coarser levels are shifted against it by half the
difference of the voxel sizes, because other programs take a translation for the centre of the first voxel.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from emsuite.common.errors import BadInput
from emsuite.common.files import write_json
from emsuite.io.formats.axes import finest_first
from emsuite.io.formats.base import NewArray
from emsuite.io.formats.zarr_chunks import read_plain

_SPACE = ("z", "y", "x")
_UNIT = "nanometer"


class Level(NamedTuple):
    """An array of an image's pyramid."""

    name: str
    """From the group to the array, such as `raw_levels/1`."""
    voxel_size: tuple[Any, ...]
    """nm, z y x."""


def axis_names(ndim: int, dims: int) -> tuple[str, ...]:
    """Return the names of `ndim` axes, of which the last `dims` are those of space: t, c, z, y, x."""
    return (*("t", "c")[2 - (ndim - dims) :], *_SPACE[-dims:])


def describe(array: Path, new: NewArray) -> None:
    """List a new array in the document of its group, as an image without coarser levels.

    Args:
        array: The folder of the array. An array that is a container itself has no group, and gets no document.
        new: The array; its attributes have `voxel_size` and `offset` in nm.
    """
    size, offset = (tuple(new.attributes[key]) for key in ("voxel_size", "offset"))
    set_levels(array, [Level(array.name, size)], offset, len(new.shape) - len(size))


def set_levels(array: Path, levels: Sequence[Level], offset: Sequence[Any], channels: int, how: str = "") -> None:
    """Write the image of an array, and replace the one that its group lists.

    Args:
        array: The folder of the array.
        levels: The finest, `array` itself, first.
        offset: Where the first voxel of `array` begins, nm, z y x.
        channels: The number of axes that are none of space: 0 or 1.
        how: The way in which coarser levels were made, such as `mean`.
    """
    dims = len(levels[0].voxel_size)
    axes: list[dict[str, str]] = [{"name": "c", "type": "channel"}] * channels
    axes += [{"name": name, "type": "space", "unit": _UNIT} for name in _SPACE[-dims:]]
    image: dict[str, Any] = {"name": array.name, "axes": axes}
    image["datasets"] = [_dataset(level, levels[0], offset, channels) for level in levels]
    with _attributes_of(array.parent) as attributes:
        if attributes is not None:
            _put(attributes, image | ({"type": how} if how else {}))


def rename(container: Path, old: str, new: str) -> None:
    """Rename the image of an array that was renamed, and that had no pyramid; both names lead from the container."""
    before, after = container / old, container / new
    moved: list[Any] = []
    with _attributes_of(before.parent) as attributes:
        if attributes is not None:
            moved = _take(attributes, before.name)
            if before.parent == after.parent:
                _put_renamed(attributes, moved, after.name)
    if before.parent != after.parent:
        with _attributes_of(after.parent) as attributes:
            if attributes is not None:
                _put_renamed(attributes, moved, after.name)


def finest_names(attributes: Mapping[str, Any]) -> list[str]:
    """Return the name of the finest array of each image that a group lists."""
    return [name for image in _images(dict(attributes)) if (name := _first(image))]


def level_names(attributes: Mapping[str, Any], name: str | None = None) -> list[str]:
    """Return the names of the arrays of an image, the finest first; none if the group lists no such image.

    Args:
        attributes: Those of the group.
        name: The finest array; None: the only image of the group.
    """
    images = _images(dict(attributes))
    for image in images if name or len(images) == 1 else ():
        paths = [item.get("path") for item in _datasets(image)]
        names = [path.strip("/") for path in paths if isinstance(path, str) and ".." not in path.split("/")]
        if names and len(names) == len(paths) and name in (None, names[0]):
            return names
    return []


def _dataset(level: Level, finest: Level, offset: Sequence[Any], channels: int) -> dict[str, Any]:
    half = [(size - fine) / 2 for size, fine in zip(level.voxel_size, finest.voxel_size, strict=True)]
    scale = [1] * channels + [_number(size) for size in level.voxel_size]
    translation = [0] * channels + [_number(begin + more) for begin, more in zip(offset, half, strict=True)]
    steps = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": translation}]
    return {"path": level.name, "coordinateTransformations": steps}


def _number(value: Any) -> int | float:
    return int(value) if value == int(value) else float(value)


def _put(attributes: dict[str, Any], image: dict[str, Any]) -> None:
    """Replace the image of the same array, or add one."""
    if "ome" not in attributes:
        image = {"version": "0.4"} | image
    images = _images(attributes)
    name = _first(image)
    here = next((n for n, other in enumerate(images) if _first(other) == name), len(images))
    before = images[here] if here < len(images) else {}
    kept = {key: value for key, value in before.items() if key not in ("type", "coordinateTransformations")}
    images[here : here + 1] = [kept | image]


def _take(attributes: dict[str, Any], name: str) -> list[Any]:
    images = _images(attributes)
    taken = [image for image in images if _first(image) == name]
    images[:] = [image for image in images if image not in taken]
    return taken


def _put_renamed(attributes: dict[str, Any], images: list[Any], name: str) -> None:
    for image in images:
        _put(attributes, image | {"name": name, "datasets": [image["datasets"][0] | {"path": name}]})


def _images(attributes: dict[str, Any]) -> list[Any]:
    """Return the list of images in the attributes of a group: a new one, in its place, if there is none."""
    owner = attributes.get("ome", attributes)
    if not isinstance(owner, dict):
        return []
    images = owner.setdefault("multiscales", [])
    return images if isinstance(images, list) else []


def _first(image: Any) -> str | None:
    return next((str(item.get("path")).strip("/") for item in _datasets(image)), None)


def _datasets(image: Any) -> list[Mapping[str, Any]]:
    datasets = image.get("datasets") if isinstance(image, Mapping) else None
    listed = [item for item in datasets if isinstance(item, Mapping)] if isinstance(datasets, list) else []
    return finest_first(listed)


@contextmanager
def _attributes_of(group: Path) -> Iterator[dict[str, Any] | None]:
    """Yield the attributes of a group to be changed; None for a folder that is no group, or whose document is odd."""
    with _alone(group):
        newer = (group / "zarr.json").exists()
        if not newer and not (group / ".zgroup").exists():
            yield None
            return
        path = group / ("zarr.json" if newer else ".zattrs")
        document = _document(path)
        attributes = document.setdefault("attributes", {}) if newer else document
        if not isinstance(attributes, dict) or (newer and document.get("node_type") != "group"):
            yield None
            return
        before = json.dumps(document)
        if newer:
            attributes.setdefault("ome", {"version": "0.5"})
        yield attributes
        if json.dumps(document) != before:
            write_json(path, document)


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(read_plain(path))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadInput(f"{path}: holds a {type(document).__name__}, expected a JSON object")
    return document


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Within the block, this process alone changes the document of the folder, where the file system has locks."""
    try:
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
