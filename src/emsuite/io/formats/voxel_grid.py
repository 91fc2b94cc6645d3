"""The voxel size and the offset of an array in nanometres, from all that its attributes say."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate, Number, exact, json_numbers, on_grid, rounded
from emsuite.io.formats.axes import Scaled, check_axes, elements_of, numbers, scaled_by_others, unit_factors
from emsuite.io.formats.base import StoredArray

_KEYS = ("voxel_size", "resolution")
_FINEST, _WIDEST = Fraction(1, 1000), 10**9  # nm: voxels of a picometre, of a metre
_FARTHEST = 2**53  # nm: floats count as far


def voxel_grid(path: Path, stored: StoredArray) -> tuple[Coordinate, Coordinate]:
    """Return voxel size and offset of an array in nm, along its axes of space.

    `voxel_size` or `resolution` of the array itself says them, in nm or in the unit that `units` names, else
    `multiscales` of a group above, `transform`, `element_size_um` or `pixelResolution`. `offset` of the array says the
    offset, else the translation of `transform` or `multiscales`.

    Both are exact, see `emsuite.common.geometry`. Sizes have the seven digits of float32, so that arrays of 4.6 nm and
    of 4.5999999 nm have one grid. An offset within a thousandth of a voxel from the grid lies on it.

    Raises:
        BadInput: They are missing, odd, of axes that are not z, y, x, or contradict each other.
    """
    attributes = stored.attributes
    own = {key: _size(path, key, attributes[key], stored) for key in _KEYS if key in attributes}
    if len({tuple(size) for size in own.values()}) > 1:
        said, resolution = json_numbers(own["voxel_size"]), json_numbers(own["resolution"])
        raise BadInput(f"{path}: 'voxel_size' {said} and 'resolution' {resolution} disagree")
    dims = len(next(iter(own.values()))) if own else min(stored.array.ndim, 3)
    check_axes(path, dims, stored)
    others = list(scaled_by_others(path, dims, stored))
    if own:
        size = next(iter(own.values()))
        told = next((other.offset for other in others if other.offset is not None), None)
        if told is not None and "offset" not in attributes:
            offset_nm = [exact(n) for n in told]
        else:
            offset_nm = _offset(path, attributes.get("offset"), dims, stored)
    elif others:
        size, offset_nm = _from_other(path, others[0], attributes.get("offset"), stored)
    else:
        raise BadInput(f"{path}: no attribute 'resolution' or 'voxel_size'; expected one, in nm, as [40, 4, 4]")
    _check_agree(path, size, others, stored)
    if "offset" in attributes:
        _check_offsets_agree(path, size, offset_nm, others)
    _check_reach(path, size, offset_nm, stored.array.shape)
    return Coordinate(size), on_grid(Coordinate(offset_nm), Coordinate(size))


def nanometres(path: Path, key: str, value: Any, factors: Iterable[Fraction] = ()) -> list[Number]:
    """Return nm for an attribute, or for numbers times the nm in their unit; raise BadInput for others."""
    written = numbers(path, key, value)
    factors = list(factors) or [Fraction(1)] * len(written)
    if len(factors) != len(written):
        factors = [Fraction(1)] * len(written)  # the number of axes is refused elsewhere
    return [exact(n * factor) for n, factor in zip(written, factors, strict=True)]


def voxel_size(path: Path, value: Any, key: str = "voxel_size", factors: Iterable[Fraction] = ()) -> list[Number]:
    """Return a voxel size above 0, as `nanometres`."""
    return _checked_size(path, f"'{key}' holds", nanometres(path, key, value, factors))


def _checked_size(path: Path, source: str, nm: Iterable[Number]) -> list[Number]:
    size = [rounded(n) for n in nm]
    if not size or not _FINEST <= min(size) <= max(size) <= _WIDEST:
        raise BadInput(f"{path}: {source} {json_numbers(size)}, expected nm above 0 per axis, as [40, 4, 4]")
    return size


def _size(path: Path, key: str, value: Any, stored: StoredArray) -> list[Number]:
    written = numbers(path, key, value)
    return voxel_size(path, value, key, unit_factors(path, len(written), stored) if written else ())


def _offset(path: Path, value: Any, dims: int, stored: StoredArray) -> list[Number]:
    if value is None:
        return [0] * dims
    offset_nm = nanometres(path, "offset", value, unit_factors(path, dims, stored))
    if len(offset_nm) != dims:
        raise BadInput(f"{path}: offset of {len(offset_nm)} and voxel size of {dims} differ in their number of axes")
    return offset_nm


def _from_other(path: Path, other: Scaled, offset: Any, stored: StoredArray) -> tuple[list[Number], list[Number]]:
    size = _checked_size(path, f"{other.source} says voxels of", map(exact, other.size))
    if offset is not None:
        return size, _offset(path, offset, len(size), stored)
    return size, [exact(n) for n in other.offset or [Fraction(0)] * len(size)]


def _check_agree(path: Path, size: list[Number], others: list[Scaled], stored: StoredArray) -> None:
    for other in others:
        if [rounded(n) for n in other.size] != size:
            raise _disagree(path, size, other)
    for _, attributes in stored.groups:
        for above in elements_of(path, len(size), attributes):
            # a group says the voxels of its finest array
            finest = [fine * Fraction(999, 1000) for fine in above.size]
            if len(finest) == len(size) and any(n < fine for n, fine in zip(size, finest, strict=True)):
                raise _disagree(path, size, above._replace(source=f"{above.source} of the group above"))


def _check_offsets_agree(path: Path, size: list[Number], offset: list[Number], others: list[Scaled]) -> None:
    """Refuse another offset; less than a voxel is how programs see the centres of coarser levels."""
    for other in others:
        said = [float(n) for n in offset]
        nm = [float(n) for n in other.offset or said]
        if any(abs(one - two) >= width for one, two, width in zip(said, nm, map(float, size), strict=False)):
            raise BadInput(f"{path}: an offset of {said} nm, but {other.source} says {nm} nm; remove one of them")


def _disagree(path: Path, size: list[Number], other: Scaled) -> BadInput:
    said, nm = json_numbers(size), [float(n) for n in other.size]
    return BadInput(f"{path}: voxels of {said} nm, but {other.source} says {nm} nm; remove one of them")


def _check_reach(path: Path, size: list[Number], offset: list[Number], shape: tuple[int, ...]) -> None:
    for width, begin, n in zip(size, offset, shape[-len(size) :], strict=False):
        if max(abs(float(begin)), abs(float(begin + width * n))) > _FARTHEST:
            raise BadInput(f"{path}: reaches from {begin} to {begin + width * n} nm, expected at most {_FARTHEST} nm")
