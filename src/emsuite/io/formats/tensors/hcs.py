"""Plates of OME-NGFF (HCS layout): zarr with rows, columns and fields; a field is an image (T, C, Z, Y, X).

    plate.zarr                         group: `plate` lists rows, columns and wells
    plate.zarr/A/1                     group: `well` lists the fields of a well
    plate.zarr/A/1/0                   group: `multiscales` lists axes and levels, `omero` the channels
    plate.zarr/A/1/0/0                 the array of the finest level
    plate.zarr/A/1/0/labels/cells/0    an image of labels; `labels` lists them

Versions 0.4 (zarr 2) and 0.5 (zarr 3, attribute `ome`) are read, 0.5 is written. Axes that an image lacks count as one
long. Voxels pass through tensorstore as those of every zarr array.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.files import write_json
from emsuite.io.formats import zarr
from emsuite.io.formats.base import Mode, NewArray

_AXES = "tczyx"
_NANOMETRES = {"nanometer": 1.0, "micrometer": 1e3, "millimeter": 1e6, "angstrom": 0.1, "meter": 1e9}
_SHARD_VOXELS = 2**26
_CHUNK = 256
_COLOURS = ("FFFFFF", "00FF00", "FF00FF", "00FFFF", "FFFF00", "FF0000", "0000FF")


class Numbers(NamedTuple):
    """The numbers of the times and slices of an image: those of its frames, else from 0."""

    times: tuple[int, ...]
    slices: tuple[int, ...]


@dataclass(frozen=True)
class FieldImage:
    """An image of a field, opened; no voxel is read yet."""

    path: Path
    array: Any
    axes: str
    """The stored axes, a part of `tczyx` in this order."""
    channels: tuple[str, ...]
    voxel_size_nm: tuple[float, float, float] | None
    """z, y, x; None if the document says no unit."""
    numbers: Numbers
    """Of its times and slices."""

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """The lengths of T, C, Z, Y, X."""
        lengths = dict(zip(self.axes, self.array.shape, strict=True))
        t, c, z, y, x = (int(lengths.get(axis, 1)) for axis in _AXES)
        return t, c, z, y, x

    def read(self, time: int, channel: int, box: Sequence[slice] | None = None) -> np.ndarray:
        """Return the voxels (Z, Y, X) of a time and a channel, or of a box in them; BadInput for damaged chunks."""
        ranges = [range(n)[part] for n, part in zip(self.shape[2:], box or [slice(None)] * 3, strict=True)]
        try:
            voxels = np.asarray(self.array[self._index(time, channel, dict(zip("zyx", ranges, strict=True)))])
        except (RuntimeError, ValueError) as error:
            raise BadInput(f"{self.path}: cannot be read, it is damaged: {error}") from None
        return voxels.reshape([len(part) for part in ranges])

    def write(self, time: int, channel: int, voxels: np.ndarray) -> None:
        """Write the voxels (Z, Y, X) of a time and a channel."""
        self.array[self._index(time, channel)] = voxels

    def _index(self, time: int, channel: int, ranges: Mapping[str, range] | None = None) -> tuple[Any, ...]:
        at = {"t": range(time, time + 1), "c": range(channel, channel + 1), **(ranges or {})}
        return tuple(slice(at[axis].start, at[axis].stop) if axis in at else slice(None) for axis in self.axes)


def is_plate(folder: Path) -> bool:
    """Return whether a folder is a plate of OME-NGFF."""
    return "plate" in _document(folder)


def field_names(plate: Path) -> list[str]:
    """Return the names of all fields, such as `A/1/0`, as the documents list them; BadInput for none or one twice."""
    wells = _document(plate).get("plate", {}).get("wells", [])
    names = []
    for well in wells if isinstance(wells, list) else []:
        name = str(well.get("path"))
        listed = _document(plate / name).get("well", {}).get("images", [])
        names += [f"{name}/{image['path']}" for image in listed]
    if not names:
        raise BadInput(f"{plate}: a plate without fields, expected at least one")
    if double := [name for name, count in Counter(names).items() if count > 1]:
        raise BadInput(f"{plate}: lists the field {double[0]} twice, expected once")
    return names


def label_names(field: Path) -> list[str]:
    """Return the names of the images of labels that a field lists."""
    listed = _document(field / "labels").get("labels", []) if (field / "labels").is_dir() else []
    return [str(name) for name in listed]


def open_image(image: Path, mode: Mode = "r") -> FieldImage:
    """Open the finest level of an image of a field; raise BadInput if it is missing or its document is odd."""
    document = _document(image)
    multiscales = document.get("multiscales")
    if not isinstance(multiscales, list) or not multiscales:
        raise BadInput(f"{image}: no image of OME-NGFF, expected `multiscales` in its document")
    try:
        axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in multiscales[0].get("axes", list(_AXES))]
        names = "".join(str(axis["name"]) for axis in axes)
        dataset = multiscales[0]["datasets"][0]
        path = str(dataset["path"])
    except (KeyError, IndexError, TypeError, AttributeError):
        raise BadInput(f"{image}: its `multiscales` cannot be read, expected axes and datasets") from None
    stored = zarr.open_array(str(image), path, mode)
    ordered = "".join(axis for axis in _AXES if axis in names)
    if names != ordered or len(names) != stored.array.ndim or not names.endswith("yx"):
        raise BadInput(f"{image}: axes {names!r} of an array {stored.array.shape}, expected t, c, z, y, x in order")
    size = _voxel_size(axes, dataset, multiscales[0])
    opened = FieldImage(image / path, stored.array, names, (), size, Numbers((), ()))
    numbers = _numbers(image, opened.shape)
    return replace(opened, channels=_channels(document, opened.shape[1]), numbers=numbers)


def create_plate(plate: Path, fields: Sequence[str]) -> None:
    """Write the documents of a plate and its wells, for fields such as `A/1/0`; images are created one by one."""
    wells: dict[str, list[str]] = {}
    for field in fields:
        row, column, name = field.split("/")
        wells.setdefault(f"{row}/{column}", []).append(name)
    rows, columns = (list(dict.fromkeys(well.split("/")[part] for well in wells)) for part in (0, 1))
    described: dict[str, Any] = {
        "name": plate.stem,
        "field_count": max(map(len, wells.values())),
        "rows": [{"name": row} for row in rows],
        "columns": [{"name": column} for column in columns],
        "wells": [
            {"path": well, "rowIndex": rows.index(well.split("/")[0]), "columnIndex": columns.index(well.split("/")[1])}
            for well in wells
        ],
    }
    _write_group(plate, {"plate": {"version": "0.5"} | described})
    for row in rows:
        _write_group(plate / row, None)
    for well, names in wells.items():
        _write_group(plate / well, {"well": {"version": "0.5", "images": [{"path": name} for name in names]}})


def create_image(
    image: Path,
    shape: Sequence[int],
    dtype: Any,
    channels: Sequence[str],
    voxel_size_nm: Sequence[float] | None,
    numbers: Numbers | None = None,
) -> None:
    """Create an image of a field, filled with 0, with one file per time and channel; replace an older one.

    Args:
        image: the group of the image, such as `plate.zarr/A/1/0`, or one of labels, `A/1/0/labels/cells`.
        shape: T, C, Z, Y, X.
        dtype: of the voxels.
        channels: the names of the channels.
        voxel_size_nm: z, y, x; None: unknown.
        numbers: of the times and slices; None: from 0.
    """
    sizes = [float(size) for size in voxel_size_nm] if voxel_size_nm else [1.0] * 3
    chunks = (1, 1, 1, min(shape[3], _CHUNK), min(shape[4], _CHUNK))
    plane = [-(-length // chunk) * chunk for length, chunk in zip(shape[3:], chunks[3:], strict=True)]
    shards = (1, 1, max(1, min(shape[2], _SHARD_VOXELS // (plane[0] * plane[1]))), *plane)
    labels = image.parent.name == "labels"
    document: dict[str, Any] = {"multiscales": [_multiscale(image.name, sizes, voxel_size_nm is not None)]}
    if labels:
        document["image-label"] = {}
        listed = [name for name in label_names(image.parent.parent) if name != image.name]
        _write_group(image.parent, {"labels": sorted([*listed, image.name])})
    else:
        document["omero"] = {"channels": [_channel(n, name, np.dtype(dtype)) for n, name in enumerate(channels)]}
    told = {"numbers": numbers._asdict()} if numbers is not None and numbers != _from_0(shape) else {}
    _write_group(image, document, told)
    new = NewArray(tuple(shape), dtype, chunks, shards, {"voxel_size": sizes}, 3, is_image=False)
    zarr.create_array(str(image), "0", new)


def _multiscale(name: str, sizes: Sequence[float], known: bool) -> dict[str, Any]:
    unit = {"unit": "nanometer"} if known else {}
    axes: list[dict[str, str]] = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": axis, "type": "space"} | unit for axis in "zyx"]
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0, *sizes]}]}
    return {"name": name, "axes": axes, "datasets": [dataset]}


def _channel(number: int, name: str, dtype: np.dtype) -> dict[str, Any]:
    low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.kind in "iu" else (0, 1)
    window = {"min": int(low), "max": int(high), "start": int(low), "end": int(high)}
    return {"label": name, "color": _COLOURS[number % len(_COLOURS)], "active": True, "window": window}


def _write_group(folder: Path, ome: Mapping[str, Any] | None, more: Mapping[str, Any] | None = None) -> None:
    attributes = {} if ome is None else {"ome": {"version": "0.5"} | dict(ome)} | dict(more or {})
    write_json(folder / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attributes})


def _document(folder: Path) -> dict[str, Any]:
    attributes = zarr.group_attributes(folder) if folder.is_dir() else {}
    ome = attributes.get("ome", attributes)
    return ome if isinstance(ome, dict) else {}


def _channels(document: Mapping[str, Any], count: int) -> tuple[str, ...]:
    omero = document.get("omero")
    listed = omero.get("channels", []) if isinstance(omero, dict) else []
    names = [str(channel.get("label", "")) if isinstance(channel, dict) else "" for channel in listed]
    return tuple((names[n] if n < len(names) else "") or f"channel {n}" for n in range(count))


def _from_0(shape: Sequence[int]) -> Numbers:
    return Numbers(tuple(range(shape[0])), tuple(range(shape[2])))


def _numbers(image: Path, shape: Sequence[int]) -> Numbers:
    """Return the numbers of times and slices that this suite writes beside `ome`; BadInput if they are odd."""
    told = zarr.group_attributes(image).get("numbers")
    if told is None:
        return _from_0(shape)
    try:
        found = Numbers(tuple(map(int, told["times"])), tuple(map(int, told["slices"])))
    except (KeyError, TypeError, ValueError):
        raise BadInput(f"{image}: the `numbers` of its times and slices cannot be read") from None
    for what, each, length in zip(("times", "slices"), found, (shape[0], shape[2]), strict=True):
        if len(set(each)) != length or len(each) != length:
            raise BadInput(f"{image}: `numbers` of {len(set(each))} {what}, expected {length}")
    return found


def _voxel_size(axes: Sequence[Any], dataset: Any, image: Any) -> tuple[float, float, float] | None:
    """Return the voxel size in nm; axes without a unit make it unknown, a missing z axis has 1."""
    sizes = dict.fromkeys("zyx", 1.0)
    try:
        for axis in axes:
            if axis["name"] in sizes:
                sizes[axis["name"]] = _NANOMETRES[axis["unit"]]
        for owner in (dataset, image):
            for step in owner.get("coordinateTransformations", []):
                for axis, factor in zip(axes, step["scale"] if step["type"] == "scale" else (), strict=False):
                    if axis["name"] in sizes:
                        sizes[axis["name"]] *= float(factor)
    except (KeyError, TypeError, ValueError):
        return None
    return sizes["z"], sizes["y"], sizes["x"]
