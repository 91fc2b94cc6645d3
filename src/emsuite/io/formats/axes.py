"""The order of an array's axes and the units of lengths, as the attributes of arrays and of groups above them say them.

Programs write them under many names: `axis_names` and `units` (funlib), `dimension_names` (zarr 3), `_ARRAY_DIMENSIONS`
(xarray), `multiscales` (OME-Zarr), `transform` (COSEM), `axistags` (ilastik). The suite reads arrays as z, y, x and
counts in nm: another unit is converted, another order is refused, a text that says neither is ignored or refused.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.io.formats.base import StoredArray

_METRE = {"metre": 9, "meter": 9, "m": 9}  # powers of ten: nm in each
_PREFIXES = {"centi": -2, "c": -2, "milli": -3, "m": -3, "micro": -6, "u": -6, "µ": -6, "μ": -6, "nano": -9, "n": -9}
_PREFIXES |= {"pico": -12, "p": -12, "": 0}
_NM_POWERS = {prefix + unit: power + _METRE[unit] for prefix, power in _PREFIXES.items() for unit in _METRE}
_NM_POWERS |= {"micron": 3, "angstrom": -1, "ångström": -1, "å": -1}

_AXIS_KEYS = ("axis_names", "axes", "_ARRAY_DIMENSIONS", "axistags", "transform")
_UNIT_KEYS = ("units", "unit")
_LARGEST = 10**30


class Scaled(NamedTuple):
    """Voxel size and offset, as one attribute says them."""

    source: str
    size: list[Fraction]
    """nm, z y x."""
    offset: list[Fraction] | None


def plain(value: Any) -> Any:
    """Return an attribute without NumPy's and HDF5's types: lists, texts, numbers."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist()) if value.dtype != np.float32 else [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.generic):
        return float(str(value)) if isinstance(value, np.float32 | np.float16) else plain(value.item())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def check_axes(path: Path, dims: int, stored: StoredArray) -> None:
    """Raise BadInput for an array or a group above it that names axes in another order than z, y, x.

    Args:
        path: The array, for messages.
        dims: Axes of space: 3, or 2 for y, x.
        stored: The array with its attributes.
    """
    expected = ["z", "y", "x"][-dims:]
    for source, names in axis_names(stored):
        spatial = [name for name in names if name in ("z", "y", "x")]
        if not spatial:
            continue
        before = names[: len(names) - len(spatial)]
        if spatial != expected or names[len(before) :] != spatial or not {"t", "time"}.isdisjoint(before):
            order = ", ".join(expected)
            raise BadInput(
                f"{path}: {source} says the axes are {', '.join(names)}, expected {order} (channels, if any, first)"
            )


def unit_factors(path: Path, dims: int, stored: StoredArray) -> list[Fraction]:
    """Return how many nm the unit of voxel size and offset has, per axis of space; raise BadInput for no length."""
    for source, attributes in ((None, stored.attributes), *stored.groups):
        for key in _UNIT_KEYS:
            if (value := plain(attributes.get(key))) is not None:
                where = f"'{key}'" if source is None else f"'{key}' of the group above"
                units = value if isinstance(value, list) and len(value) > 1 else [_only(value)] * dims
                if len(units) < dims:
                    raise BadInput(f"{path}: {where} holds {units}, expected one unit, or one per axis")
                return [_nm_per(path, where, unit) or Fraction(1) for unit in units[-dims:]]
    return [Fraction(1)] * dims


def scaled_by_others(path: Path, dims: int, stored: StoredArray) -> Iterator[Scaled]:
    """Yield what attributes other than `voxel_size` and `resolution` say of the voxels; raise BadInput for odd ones."""
    own = stored.attributes
    if isinstance(transform := own.get("transform"), Mapping):
        yield from _transformed(path, "'transform'", dims, transform)
    for name, attributes in stored.groups:
        for image in _multiscales(attributes):
            yield from _multiscale(path, dims, name, image)
    yield from elements_of(path, dims, own)


def elements_of(path: Path, dims: int, attributes: Mapping[str, Any]) -> Iterator[Scaled]:
    """Yield the voxel size of `element_size_um` (ilastik) and of `pixelResolution` (N5, in the order x, y, z)."""
    if (micrometres := plain(attributes.get("element_size_um"))) is not None:
        size = numbers(path, "element_size_um", micrometres)
        yield Scaled("'element_size_um'", [1000 * number for number in size][-dims:], None)
    if (resolution := plain(attributes.get("pixelResolution"))) is not None:
        unit = resolution.get("unit") if isinstance(resolution, Mapping) else ""
        values = resolution.get("dimensions") if isinstance(resolution, Mapping) else resolution
        factor = _nm_per(path, "'pixelResolution'", unit) or Fraction(1)
        size = [factor * number for number in reversed(numbers(path, "pixelResolution", values))]
        yield Scaled("'pixelResolution'", size[-dims:], None)


def numbers(path: Path, key: str, value: Any) -> list[Fraction]:
    """Return an attribute that is a list of finite numbers, exactly as it is written; raise BadInput for another."""
    value = plain(value)
    try:
        if not isinstance(value, list) or any(isinstance(item, str | bool) for item in value):
            raise TypeError
        exact = [Fraction(item) if isinstance(item, int) else Fraction(str(item)) for item in value]
        if any(abs(number) > _LARGEST for number in exact):
            raise ValueError
        return exact
    except (TypeError, ValueError, OverflowError):
        shown = repr(value) if len(repr(value)) < 80 else repr(value)[:77] + "..."
        raise BadInput(f"{path}: '{key}' holds {shown}, expected nm per axis, as [40, 4, 4]") from None


def _only(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


def _nm_per(path: Path, source: str, unit: Any) -> Fraction | None:
    """Return the nm in a unit, None if the text is empty; raise BadInput for a text that is no unit of length."""
    text = "" if unit is None else unit
    if not isinstance(text, str):
        raise BadInput(f"{path}: {source} holds {unit!r}, expected a unit of length such as nm")
    if not text.strip():
        return None
    word = text.strip()
    word = word.lower() if len(word) > 2 or word.isupper() else word  # Mm is no mm
    power = _NM_POWERS.get(word, _NM_POWERS.get(word.removesuffix("s")))
    if power is None:
        raise BadInput(f"{path}: {source} says the unit is {text!r}, expected nm, or a unit that can be converted")
    return Fraction(10) ** power


def axis_names(stored: StoredArray) -> Iterator[tuple[str, list[str]]]:
    """Yield the names of axes that each attribute says, in lower case, and words for the attribute."""
    yield "dimension_names", _names(list(stored.dimension_names))
    for group, attributes in (("", stored.attributes), *stored.groups):
        for key in _AXIS_KEYS:
            if key in attributes:
                yield f"'{key}'" + (" of the group above" if group else ""), _names(plain(attributes[key]))
        for image in _multiscales(attributes) if group else ():
            if group in _datasets(image):
                yield "'multiscales' of the group above", _names(image.get("axes"))


def _names(value: Any) -> list[str]:
    """Return names of axes in lower case, from a list of texts or objects, or from one text."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return []
    if isinstance(value, Mapping):
        value = value.get("axes")
    if isinstance(value, str):
        value = value.replace(",", " ").split() if len(value.split()) > 1 or "," in value else list(value)
    if not isinstance(value, list):
        return []
    names = [item.get("name", item.get("key")) if isinstance(item, Mapping) else item for item in value]
    return [name.strip().rstrip("^").lower() if isinstance(name, str) else "" for name in names]


def _multiscales(attributes: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    newer = attributes.get("ome")
    images = (newer if isinstance(newer, Mapping) else attributes).get("multiscales")
    return [image for image in images if isinstance(image, Mapping)] if isinstance(images, list) else []


def _datasets(image: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    datasets = image.get("datasets")
    listed = [item for item in datasets if isinstance(item, Mapping)] if isinstance(datasets, list) else []
    return {str(item.get("path")).strip("/"): item for item in listed}


def _multiscale(path: Path, dims: int, name: str, image: Mapping[str, Any]) -> Iterator[Scaled]:
    """Yield what OME-Zarr says of the array `name` below the group, if it is a scale of this image."""
    if name not in (datasets := _datasets(image)) or not is_scaled(datasets[name], image):
        return  # an image without a scale says an order of axes, but no lengths
    axes = image.get("axes")
    units = [axis.get("unit") if isinstance(axis, Mapping) else None for axis in axes] if isinstance(axes, list) else []
    sizes, offset = _placed(path, len(units), [*_steps(datasets[name]), *_steps(image)])
    finest = finest_first(list(datasets.values()))[0]
    fine, begin = _placed(path, len(units), [*_steps(finest), *_steps(image)])
    half = [(a - b) / 2 for a, b in zip(sizes, fine, strict=True)]
    if all(abs(o - b - h) <= s / 10**6 for o, b, h, s in zip(offset, begin, half, sizes, strict=True)):
        offset = begin  # the centres of the first voxels are told; they begin together
    yield from _in_nm(path, "'multiscales' of the group above", dims, units, sizes, offset)


def is_scaled(*items: Mapping[str, Any]) -> bool:
    """Return whether a dataset, or its image, says a scale."""
    steps = [step for item in items for step in _steps(item)]
    # steps that are no identity are looked at, or refused, one by one
    return any(not isinstance(step, Mapping) or step.get("type") not in ("translation", "identity") for step in steps)


def finest_first(datasets: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the datasets of an image, the one with the smallest voxels first; as listed if a scale is odd."""
    try:
        sizes = [_volume(dataset) for dataset in datasets]
    except (BadInput, KeyError, TypeError):
        return datasets
    return [datasets[index] for index in sorted(range(len(datasets)), key=sizes.__getitem__)]


def _volume(dataset: Mapping[str, Any]) -> Fraction:
    scales = [numbers(Path(), "scale", step["scale"]) for step in _steps(dataset) if step["type"] == "scale"]
    return math.prod((abs(number) for scale in scales for number in scale), start=Fraction(1))


def _placed(path: Path, number: int, steps: list[Any]) -> tuple[list[Fraction], list[Fraction]]:
    """Return scale and translation of `number` axes after all steps."""
    sizes, offset = [Fraction(1)] * number, [Fraction(0)] * number
    for step in steps:
        kind = step.get("type") if isinstance(step, Mapping) else None
        if kind not in ("scale", "translation", "identity") or (kind != "identity" and kind not in step):
            raise BadInput(f"{path}: 'multiscales' of the group above has a transformation {kind!r}, expected a scale")
        values = numbers(path, "multiscales", step.get(kind, [1] * number))
        if len(values) != number:
            raise BadInput(f"{path}: 'multiscales' of the group above has {len(values)} numbers for {number} axes")
        if kind == "scale":
            sizes, offset = ([a * b for a, b in zip(old, values, strict=True)] for old in (sizes, offset))
        elif kind == "translation":
            offset = [a + b for a, b in zip(offset, values, strict=True)]
    return sizes, offset


def _steps(item: Mapping[str, Any]) -> list[Any]:
    steps = item.get("coordinateTransformations")
    return steps if isinstance(steps, list) else []


def _transformed(path: Path, source: str, dims: int, transform: Mapping[str, Any]) -> Iterator[Scaled]:
    units, scale = plain(transform.get("units")), transform.get("scale")
    if isinstance(units, list) and scale is not None:
        size = numbers(path, "transform", scale)
        offset = numbers(path, "transform", transform.get("translate", [0] * len(size)))
        yield from _in_nm(path, source, dims, units, size, offset)


def _in_nm(
    path: Path, source: str, dims: int, units: Sequence[Any], size: list[Fraction], offset: list[Fraction]
) -> Iterator[Scaled]:
    """Yield lengths in nm, unless a unit is left unsaid."""
    factors = [_nm_per(path, source, unit) for unit in units[-dims:]]
    if len(factors) == dims == len(size[-dims:]) == len(offset[-dims:]) and None not in factors:
        nm = [[f * n for f, n in zip(factors, values[-dims:], strict=True) if f] for values in (size, offset)]
        yield Scaled(source, nm[0], nm[1])
