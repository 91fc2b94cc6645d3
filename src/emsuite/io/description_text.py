"""Descriptions of arrays as lines to read, and as plain dictionaries for JSON."""

import math
from dataclasses import asdict
from typing import Any

from emsuite.io.description import PERCENTILES, Description, Values

_SHOWN_ATTRIBUTES = 8
_WIDEST = 100
_GRID = ("voxel_size", "resolution", "offset", "units")
"""Attributes that stand in the description under their own names."""


def as_text(told: Description) -> str:
    """Return the description of an array in several lines, the path first."""
    rows = [("", f"{told.format}, {_by(told.shape)} {told.dtype}{_axes(told)}, {_size(told)}")]
    if told.voxel_size is not None and told.offset is not None:
        spatial = told.shape[-len(told.voxel_size) :]
        ends = [b + n * width for b, n, width in zip(told.offset, spatial, told.voxel_size, strict=True)]
        covers = ",".join(f"{b:.12g}:{e:.12g}" for b, e in zip(told.offset, ends, strict=True))
        rows.append(("voxel size", f"{_listed(told.voxel_size)} nm, offset {_listed(told.offset)} nm, covers {covers}"))
    if told.problem:
        rows.append(("no volume", told.problem))
    rows.append(("stored in", _storage(told)))
    if told.values:
        first, *more = _values(told.values)
        rows += [("values", first), *(("", text) for text in more)]
    others = {key: value for key, value in told.attributes.items() if key not in _GRID}
    rows += [(str(key), _short(value)) for key, value in list(others.items())[:_SHOWN_ATTRIBUTES]]
    if len(others) > _SHOWN_ATTRIBUTES:
        rows.append(("and", f"{len(others) - _SHOWN_ATTRIBUTES} more attributes"))
    return "\n".join([told.path, *(f"  {name + ':' if name else '':15}{text}".rstrip() for name, text in rows)])


def as_dictionary(told: Description) -> dict[str, Any]:
    """Return the description for JSON; attributes that JSON lacks are texts, and numbers that are none are null."""
    return {key: _plain(value) for key, value in asdict(told).items()}


def _axes(told: Description) -> str:
    return f" ({told.axes})" if told.axes else ""


def _by(lengths: tuple[int, ...]) -> str:
    return " x ".join(map(str, lengths)) or "one value"


def _listed(numbers: tuple[float, ...]) -> str:
    return ",".join(f"{number:.12g}" for number in numbers)


def _size(told: Description) -> str:
    itemsize = max(1, int("".join(letter for letter in told.dtype if letter.isdigit()) or 8) // 8)
    size = float(math.prod(told.shape) * itemsize)
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.0f} PB"


def _storage(told: Description) -> str:
    pieces = f"chunks of {_by(told.chunks)}" if told.chunks else "one piece"
    shards = f", {_by(told.shards)} in a file" if told.shards else ""
    return f"{pieces}{shards}, " + (f"packed by {told.compression}" if told.compression else "not packed")


def _values(values: Values) -> list[str]:
    of = "all voxels" if values.voxels == values.of else f"{values.voxels:,} of {values.of:,} voxels"
    marks = " ".join(f"{mark:.6g}" for mark in values.percentiles)
    names = " ".join(f"{percentile} %" for percentile in PERCENTILES)
    lines = [f"{values.lowest:.12g} to {values.highest:.12g}, percentiles ({names}) {marks}; of {of}"]
    if values.listed:
        lines.append(f"only {', '.join(map(str, values.listed))}")
    elif values.different is not None:
        lines.append(f"{values.different:,} different ones but 0; {100 * values.zeros:.3g} % are 0")
    if values.not_finite:
        lines.append(f"{values.not_finite:,} are NaN or infinite")
    return lines


def _short(value: Any) -> str:
    text = str(_plain(value))
    return text if len(text) <= _WIDEST else text[: _WIDEST - 3] + "..."


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int | str | bool | None) else str(value)
