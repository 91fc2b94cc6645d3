"""Arrays whose metadata say another order of axes than z, y, x are read as if they were stored in it.

    stored (t, c, z, y, x)    t of length 1          seen (c, z, y, x)
    stored (x, y, z)          Fortran's order        seen (z, y, x)
    stored (z, y, x, c)       channels last          seen (c, z, y, x)

Nothing is copied: a slice of the view reads the slice of the array, and its axes are transposed then. What attributes
say of each axis, such as `voxel_size` beside `axis_names`, follows the stored axes and is put into the same order.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.io.formats.axes import axis_names, plain
from emsuite.io.formats.base import StoredArray

_SPACE = ("z", "y", "x")
_TIME = ("t", "time")
_OF_AXES = ("axis_names", "axes", "_ARRAY_DIMENSIONS", "axistags", "transform", "units", "unit")
_LENGTHS = ("voxel_size", "resolution")
_STEPS = "coordinateTransformations"


class OrderedArray:
    """An array with other axes: some in another order, some of length 1 left out."""

    def __init__(self, array: Any, axes: Sequence[int]):
        """Show `array`; `axes` are its axes in the order in which they are seen."""
        self._array, self.axes = array, tuple(axes)
        self.ndim = len(self.axes)
        self.dtype = array.dtype
        self.shape = self._seen(array.shape)

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Voxels per axis that are compressed together."""
        return self._seen(getattr(self._array, "chunks", None))

    @property
    def shards(self) -> tuple[int, ...] | None:
        """Voxels per axis that are stored in one file."""
        return self._seen(getattr(self._array, "shards", None))

    def __getitem__(self, index: Any) -> np.ndarray:
        """Return the voxels at slices or whole numbers, one for each axis that is seen; the rest is taken whole."""
        stored, single = self._stored_index(index)
        left_out = [axis for axis in range(self._array.ndim) if axis not in self.axes]
        voxels = np.asarray(self._array[stored]).squeeze(tuple(left_out))
        return voxels.transpose(np.argsort(np.argsort(self.axes))).squeeze(single)

    def __setitem__(self, index: Any, voxels: Any) -> None:
        """Write voxels where `__getitem__` reads them."""
        stored, single = self._stored_index(index)
        left_out = [axis for axis in range(self._array.ndim) if axis not in self.axes]
        if np.ndim(voxels):
            voxels = np.expand_dims(np.asarray(voxels), single)
            voxels = np.expand_dims(voxels.transpose(np.argsort(self.axes)), tuple(left_out))
        self._array[stored] = voxels

    def _seen(self, lengths: Sequence[int] | None) -> Any:
        return None if lengths is None else tuple(lengths[axis] for axis in self.axes)

    def _stored_index(self, index: Any) -> tuple[tuple[slice, ...], tuple[int, ...]]:
        """Return the index of the stored array, and the axes seen that one number was asked of."""
        parts = list(index) if isinstance(index, tuple) else [index]
        more = [slice(None)] * (self.ndim - len([part for part in parts if part is not Ellipsis]))
        at = next((n for n, part in enumerate(parts) if part is Ellipsis), len(parts))
        parts[at : at + 1] = more
        single = tuple(axis for axis, part in enumerate(parts) if not isinstance(part, slice))
        stored = [slice(None)] * self._array.ndim
        for axis, part in zip(self.axes, parts, strict=True):
            stored[axis] = part if isinstance(part, slice) else slice(int(part), int(part) + 1 or None)
        return tuple(stored), single


def in_order(path: Path, stored: StoredArray) -> StoredArray:
    """Return an array and its attributes with the axes (c), z, y, x, if metadata say that it has others.

    An axis of time is left out, and so is an axis of one channel where no attribute of the array itself says a voxel
    size: images of microscopes come as (t, c, z, y, x).

    Args:
        path: The array, for messages.
        stored: The array as it is stored.

    Raises:
        BadInput: There are several points of time, or two attributes say different orders.
    """
    kinds = _kinds(path, stored)
    if kinds is None:
        return stored
    shape = stored.array.shape
    if "t" in kinds and shape[kinds.index("t")] != 1:
        raise BadInput(f"{path}: axes {', '.join(kinds)} of {tuple(shape)} voxels, expected one point of time")
    seen = [kind for kind in ("c", *_SPACE) if kind in kinds]
    of_one_channel = seen[0] == "c" and shape[kinds.index("c")] == 1
    if of_one_channel and not any(key in stored.attributes for key in _LENGTHS) and len(kinds) > 3:
        seen.remove("c")
    axes = [kinds.index(kind) for kind in seen]
    if axes == list(range(len(kinds))):
        return stored
    order = _Order(len(kinds), axes, [kinds.index(kind) for kind in seen if kind != "c"])
    attributes = stored.attributes | order.apply(stored.attributes, (*_OF_AXES, *_LENGTHS, "offset"))
    groups = tuple((name, group | order.of_group(name, group)) for name, group in stored.groups)
    return StoredArray(OrderedArray(stored.array, axes), attributes, tuple(order.of(stored.dimension_names)), groups)


def _kinds(path: Path, stored: StoredArray) -> list[str] | None:
    """Return what each stored axis is, of t, c, z, y, x; None if nothing says it, or axes are none of an image."""
    said: list[tuple[str, list[str]]] = []
    for source, names in axis_names(stored):
        kinds = ["t" if name in _TIME else name if name in _SPACE else "c" for name in names]
        if len(kinds) == stored.array.ndim and "y" in kinds and "x" in kinds and len(set(kinds)) == len(kinds):
            said.append((source, kinds))
    for source, kinds in said[1:]:
        if kinds != said[0][1]:
            first, other = (", ".join(names) for names in (said[0][1], kinds))
            raise BadInput(f"{path}: {said[0][0]} says the axes are {first}, but {source} says {other}; remove one")
    return said[0][1] if said else None


class _Order:
    """Puts lists that have an item for each stored axis, or for each of space, into the order of the axes seen."""

    def __init__(self, number: int, axes: list[int], spatial: list[int]):
        self._number, self._axes = number, axes
        self._spatial = [sorted(spatial).index(axis) for axis in spatial]

    def of(self, value: Any) -> Any:
        """Return a list in order, and objects with lists in order; other values as they are."""
        value = plain(value)
        if isinstance(value, str):
            return self._of_text(value)
        if isinstance(value, Mapping):
            return {
                key: item if isinstance(item, str) and key != "axes" else self.of(item) for key, item in value.items()
            }
        if isinstance(value, list) and len(value) == self._number:
            return [value[axis] for axis in self._axes]
        if isinstance(value, list) and len(value) == len(self._spatial):
            return [value[axis] for axis in self._spatial]
        return value

    def apply(self, attributes: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
        """Return the attributes with these keys, in order."""
        return {key: self.of(attributes[key]) for key in keys if key in attributes}

    def of_group(self, name: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a group says of its array `name`, in order."""
        changed = self.apply(attributes, _OF_AXES)
        if isinstance(newer := attributes.get("ome"), Mapping):
            return changed | {"ome": {**newer, "multiscales": self._images(name, newer.get("multiscales"))}}
        return changed | {"multiscales": self._images(name, attributes.get("multiscales"))}

    def _images(self, name: str, images: Any) -> Any:
        """Return the images of a group that have the array as a level; the axes of others are not known."""
        if not isinstance(images, list):
            return images
        return [self._image(image) for image in images if name in _levels(image)]

    def _image(self, image: Mapping[str, Any]) -> dict[str, Any]:
        datasets = [item | self._steps(item) for item in image["datasets"] if isinstance(item, dict)]
        return {**image, "axes": self.of(image.get("axes")), "datasets": datasets} | self._steps(image)

    def _steps(self, item: Mapping[str, Any]) -> dict[str, Any]:
        steps = item.get(_STEPS)
        return {_STEPS: [self.of(step) for step in steps]} if isinstance(steps, list) else {}

    def _of_text(self, text: str) -> Any:
        if text.lstrip().startswith("{"):
            try:
                return self.of(json.loads(text))
            except (ValueError, RecursionError):
                return text
        letters = text.replace(",", " ").split() if len(text.split()) > 1 or "," in text else list(text)
        return self.of(letters) if len(letters) == self._number else text


def _levels(image: Any) -> list[str]:
    datasets = image.get("datasets") if isinstance(image, Mapping) else None
    listed = datasets if isinstance(datasets, list) else []
    return [str(item.get("path")).strip("/") for item in listed if isinstance(item, Mapping)]
