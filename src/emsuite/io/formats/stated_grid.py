"""The voxel size and the offset that the user states for arrays whose files say none.

    --voxel-size 40,4,4  ->  stating(paths, ...)  ->  environment  ->  open_volume of this process, and of its workers

Paths travel between processes without more, so that the environment carries what was stated for them: workers and the
jobs of a cluster inherit it.
"""

import json
import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from emsuite.common.errors import BadInput
from emsuite.io.formats.axes import numbers, scaled_by_others
from emsuite.io.formats.base import StoredArray
from emsuite.io.formats.voxel_grid import voxel_grid

_ENVIRONMENT = "EMSUITE_STATED_GRIDS"
_OWN = ("voxel_size", "resolution")
_NEAR = Fraction(1, 1000)
"""The part of a voxel by which equal numbers may differ, because files hold rounded ones."""


class StatedOtherwise(BadInput):
    """The file says another voxel size or offset than the user."""


class Stated(NamedTuple):
    """A voxel size and an offset, nm, z y x; None: not stated."""

    voxel_size: list[float] | None = None
    offset: list[float] | None = None


def stating(paths: Iterable[str | Path], stated: Stated) -> tuple[str, str]:
    """Return the environment variable, name and text, that states a grid for arrays, or for all arrays in containers.

    What the environment of this process states of other paths stays.
    """
    known = json.loads(os.environ.get(_ENVIRONMENT) or "{}")
    for path in paths:
        size, offset = known.get(_key(path), (None, None))
        known[_key(path)] = [stated.voxel_size or size, stated.offset or offset]
    return _ENVIRONMENT, json.dumps(known)


def stated_for(path: Path) -> Stated:
    """Return what was stated for an array, or for what it lies in."""
    known = json.loads(os.environ.get(_ENVIRONMENT) or "{}")
    here = Path(_key(path)) if known else path
    for part in (here, *here.parents) if known else ():
        if str(part) in known:
            return Stated(*known[str(part)])
    return Stated()


def grid_of(path: Path, stored: StoredArray, stated: Stated) -> tuple[Any, Any]:
    """Return voxel size and offset of an array, nm, as `voxel_grid`, or as the user states them.

    Raises:
        BadInput: As `voxel_grid`.
        StatedOtherwise: The file says another voxel size or offset than the user.
    """
    own = stored.attributes
    others = list(scaled_by_others(path, min(stored.array.ndim, 3), stored))
    is_placed = "offset" in own or any(other.offset is not None for other in others)
    if not others and not any(key in own for key in _OWN):
        if stated.voxel_size is None:
            expected = "expected one, in nm, as [40, 4, 4], or the option --voxel-size"
            raise BadInput(f"{path}: no attribute 'resolution' or 'voxel_size'; {expected}")
        # the unit of a file that says no lengths means nothing
        stored = stored._replace(attributes=own | {"voxel_size": stated.voxel_size, "units": "nm"})
    voxel_size, offset = voxel_grid(path, stored)
    if stated.voxel_size is not None:
        _check_agree(path, "voxel size", voxel_size, stated.voxel_size, voxel_size)
    if stated.offset is None:
        return voxel_size, offset
    if is_placed:
        _check_agree(path, "offset", offset, stated.offset, voxel_size)
        return voxel_size, offset
    grid = {"voxel_size": [float(n) for n in voxel_size], "offset": stated.offset}
    return voxel_grid(path, stored._replace(attributes=grid, groups=()))


def _check_agree(path: Path, what: str, own: Any, stated: list[float], size: Any) -> None:
    exact = numbers(path, what, stated)
    is_near = len(exact) == len(own) and all(
        abs(a - Fraction(b)) <= _NEAR * Fraction(c) for a, b, c in zip(exact, own, size, strict=True)
    )
    if not is_near:
        option = "--" + what.replace(" ", "-")
        raise StatedOtherwise(f"{path}: its file says a {what} of {_text(own)} nm, but {option} says {_text(exact)} nm")


def _text(values: Iterable[Any]) -> str:
    return ",".join(f"{float(value):g}" for value in values)


def _key(path: str | Path) -> str:
    text = str(Path(path))
    return text if ":/" in text else os.path.realpath(text)
