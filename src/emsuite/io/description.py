"""What lies at a path: each array with its shape, type, grid, storage and a bounded sample of its values.

    folder -> containers below it -> arrays -> Description, whose values come from the sample

A sample is the whole array, or blocks at 27 places of a large one, so that looking costs seconds for any volume.
"""

import itertools
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.progress import progress
from emsuite.io.volume import (
    StatedOtherwise,
    Volume,
    array_names,
    holds_array,
    is_url,
    name_of_format,
    open_stored,
    open_volume,
    split_path,
)

_WHOLE = 2**24  # voxels
_BLOCK = 2**18  # voxels
_PLACES = 3  # along each axis
_DEPTH = 5  # folders
_MOST_CONTAINERS = 1000
_FEW = 16  # different values that are listed
_PATIENCE = 2.0  # seconds before progress is shown
PERCENTILES = (1, 50, 99)


@dataclass(frozen=True)
class Values:
    """The values in a sample: `voxels` of `of` in the array."""

    voxels: int
    of: int
    lowest: float
    highest: float
    percentiles: tuple[float, ...]
    """By `PERCENTILES`."""
    different: int | None
    """The number of different values but 0, which of labels is that of objects; None for floats."""
    listed: tuple[int, ...]
    """The values, if they are few."""
    zeros: float
    """The part of the voxels that are 0."""
    not_finite: int


@dataclass(frozen=True)
class Description:
    """An array, as far as it can be read; lengths are in nm, z y x."""

    path: str
    format: str
    shape: tuple[int, ...]
    dtype: str
    axes: str
    chunks: tuple[int, ...] | None
    shards: tuple[int, ...] | None
    compression: str | None
    attributes: dict[str, Any]
    voxel_size: tuple[float, ...] | None
    offset: tuple[float, ...] | None
    problem: str | None
    """Why it cannot be used as a volume, as a message of `open_volume`."""
    values: Values | None


def arrays_at(path: Path) -> list[Path]:
    """Return the paths of all arrays at a path: an array, a group, a container, or a folder above containers.

    Raises:
        BadInput: Nothing lies there, or no array.
    """
    try:
        container, name = split_path(path)
    except BadInput:
        if not path.is_dir():
            raise
        container, name = None, ""
    if container is None or (path.is_dir() and container == path and name_of_format(path) == "image folder"):
        arrays = [array for found in _containers_below(path, _DEPTH) for array in _arrays_in(found)]
        if not arrays:
            raise BadInput(f"{path}: holds no volume; expected a container as VOLUME.zarr, or a folder with some")
        return arrays
    if is_url(path) or not name:
        return _arrays_in(container)
    names = [other for other in array_names(container) if f"{other}/".startswith(f"{name}/")]
    if not names:
        holds_array(path)
        open_stored(path)  # says which arrays exist
    return [container / name for name in names]


def _arrays_in(container: Path) -> list[Path]:
    names = array_names(container)
    if not names:
        raise BadInput(f"{container}: holds no arrays")
    return [container / name for name in names]


def _containers_below(folder: Path, depth: int) -> Iterator[Path]:
    """Yield the containers in a folder and the folders below, in order; links are not followed."""
    found = 0
    for here, below, files in os.walk(folder):
        images = _is_stack(Path(here), files)
        if images:
            yield Path(here)
        inside = sorted(name for name in [*below, *files] if not name.startswith("."))
        containers = {name for name in inside if _is_container(Path(here) / name, but_images=images)}
        for name in sorted(containers):
            found += 1
            if found > _MOST_CONTAINERS:
                raise BadInput(f"{folder}: holds more than {_MOST_CONTAINERS} containers, expected a folder below")
            yield Path(here) / name
        deep = len(Path(here).relative_to(folder).parts) >= depth
        below[:] = [] if deep else sorted(name for name in below if name in inside and name not in containers)


def _is_stack(folder: Path, files: list[str]) -> bool:
    """Return whether the images in a folder are sections of one volume; files of TIFF may be volumes themselves."""
    if name_of_format(folder) != "image folder":
        return False
    try:
        open_stored(folder)
    except BadInput:
        return not any(name_of_format(folder / name) == "tiff" for name in files)
    return True


def _is_container(path: Path, but_images: bool) -> bool:
    kind = name_of_format(path)
    return kind not in (None, "image folder") and not (but_images and kind == "tiff")


def describe(path: Path, with_values: bool = True) -> Description:
    """Describe an array; what keeps it from being a volume is told in `problem`, a damaged one raises BadInput."""
    stored = open_stored(path)
    array = stored.array
    voxel_size = offset = problem = values = None
    axes = "".join(name or "?" for name in stored.dimension_names) if any(stored.dimension_names) else ""
    try:
        volume = open_volume(path)
        voxel_size, offset = (tuple(float(n) for n in each) for each in (volume.voxel_size, volume.offset))
        axes = "CZYX"[-len(volume.shape) :] if volume.voxel_size.dims == 3 else "CYX"[-len(volume.shape) :]
    except StatedOtherwise:
        raise
    except BadInput as error:
        problem = str(error).removeprefix(f"{path}: ")
    if with_values and math.prod(array.shape):
        values = _values(path, array)
    return Description(
        path=str(path),
        format=str(name_of_format(path)),
        shape=tuple(array.shape),
        dtype=str(array.dtype),
        axes=axes,
        chunks=_lengths(array, "chunks"),
        shards=_lengths(array, "shards"),
        compression=_compression(array),
        attributes=stored.attributes,
        voxel_size=voxel_size,
        offset=offset,
        problem=problem,
        values=values,
    )


def _lengths(array: Any, name: str) -> tuple[int, ...] | None:
    lengths = getattr(array, name, None)
    return None if lengths is None else tuple(lengths)


def _compression(array: Any) -> str | None:
    if codecs := getattr(array, "compressors", None):
        return ", ".join(map(_codec, codecs))
    said = getattr(array, "compression", None)
    return None if said is None else str(said).lower()


def _codec(codec: Any) -> str:
    name = getattr(codec, "codec_id", None) or type(codec).__name__.removesuffix("Codec").lower()
    inner = getattr(codec, "cname", None)
    return f"{name} {getattr(inner, 'value', inner)}" if inner else name


def _values(path: Path, array: Any) -> Values:
    """Return the values of a sample; raise BadInput for a damaged array."""
    blocks = list(_blocks(array))
    readable = Volume(path, array, None, None)  # type: ignore[arg-type]  # reads with the messages of volumes
    pieces = [readable[block].ravel() for block in _told_if_long(blocks, f"{path}: values")]
    voxels = np.concatenate(pieces)
    if voxels.dtype.kind == "b":
        voxels = voxels.astype(np.uint8)
    finite = voxels[np.isfinite(voxels)] if voxels.dtype.kind == "f" else voxels
    lowest, highest = (finite.min().item(), finite.max().item()) if finite.size else (math.nan, math.nan)
    marks = np.percentile(finite, PERCENTILES, method="nearest") if finite.size else np.array([])
    found = None if voxels.dtype.kind == "f" else np.unique(voxels)
    return Values(
        voxels=voxels.size,
        of=math.prod(array.shape),
        lowest=lowest,
        highest=highest,
        percentiles=tuple(mark.item() for mark in marks),
        different=None if found is None else int(np.count_nonzero(found)),
        listed=tuple(found.tolist()) if found is not None and len(found) <= _FEW else (),
        zeros=1 - np.count_nonzero(voxels) / voxels.size,
        not_finite=voxels.size - finite.size,
    )


def _blocks(array: Any) -> Iterator[tuple[slice, ...]]:
    """Yield the blocks of a sample: slabs of a small array; of a large one 3 places along each axis."""
    shape = tuple(array.shape)
    if not shape:
        yield ()
    elif math.prod(shape) <= _WHOLE:
        thick = max(1, _BLOCK * shape[0] // max(1, math.prod(shape)), *(_lengths(array, "chunks") or shape)[:1])
        for begin in range(0, shape[0], thick):
            yield (slice(begin, min(begin + thick, shape[0])),)
    else:
        yield from _spread(array, shape)


def _spread(array: Any, shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    lengths = [min(n, wide) for n, wide in zip(shape, _lengths(array, "chunks") or [64] * len(shape), strict=True)]
    while math.prod(lengths) > _BLOCK:
        widest = max(range(len(lengths)), key=lambda axis: lengths[axis])
        lengths[widest] = -(-lengths[widest] // 2)
    places = [_places(n, length) for n, length in zip(shape, lengths, strict=True)]
    for corner in itertools.product(*places):
        yield tuple(slice(begin, begin + length) for begin, length in zip(corner, lengths, strict=True))


def _places(whole: int, length: int) -> Sequence[int]:
    """Return where blocks begin along an axis: spread evenly, on the grid of blocks, none twice."""
    rooms = whole // length
    return sorted({(2 * n + 1) * rooms // (2 * _PLACES) * length for n in range(_PLACES)})


def _told_if_long(blocks: list[Any], what: str) -> Iterator[Any]:
    """Yield blocks; progress is shown if they take long."""
    start, bar = time.monotonic(), None
    for number, block in enumerate(blocks):
        if bar is None and time.monotonic() - start > _PATIENCE:
            bar = progress(what=what, total=len(blocks), done=number, unit="block")
        yield block
        if bar is not None:
            bar.update()
    if bar is not None:
        bar.close()
