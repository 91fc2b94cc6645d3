"""The levels of a pyramid: coarser arrays of the same region, which the metadata of a group list (OME-NGFF).

x.zarr/volumes/raw             level 0
x.zarr/volumes/raw_levels/1    level 1
plate.ome.zarr                 an image of another program: its arrays are plate.ome.zarr/0, plate.ome.zarr/1, ...
"""

from collections.abc import Sequence
from pathlib import Path

from emsuite.common.errors import BadInput
from emsuite.io.formats import zarr
from emsuite.io.formats.axis_order import OrderedArray
from emsuite.io.formats.ome_ngff import Level, finest_names, level_names
from emsuite.io.formats.registry import find_format
from emsuite.io.volume import Volume, split_path


def levels_of(path: Path) -> list[Path]:
    """Return the arrays of a pyramid, the finest first; the array alone if it has none.

    Args:
        path: The finest array, or the group that is the image.

    Raises:
        BadInput: As `open_volume`.
    """
    stored_as, container, name = find_format(path)
    groups = stored_as.open_array(container, name, "r").groups
    array = groups[-1][0] if groups else name
    for below, attributes in groups:
        if names := level_names(attributes, below):
            group = Path(container) / array.removesuffix(below)
            return [group / level for level in names]
    return [Path(path)]


def level_path(path: Path, level: int) -> Path:
    """Return the array of one level, 0 for the finest; raise BadInput if there is none, or as `open_volume`."""
    if level == 0:
        return path
    levels = levels_of(path)
    if not 0 < level < len(levels):
        raise BadInput(f"{path}: has no level {level}, expected one of {len(levels)} from 0 up")
    return levels[level]


def is_coarser_level(path: Path) -> bool:
    """Return whether a group lists the array as a coarser level of another one."""
    try:
        stored_as, container, name = find_format(path)
        groups = stored_as.open_array(container, name, "r").groups
    except BadInput:
        return False
    return any(
        below in level_names(attributes, finest)[1:]
        for below, attributes in groups
        for finest in finest_names(attributes)
    )


def levels_folder(array: Path) -> Path:
    """Return the folder for the coarser levels that the suite writes: 1, 2, ... beside an array."""
    return array.with_name(array.name + "_levels")


def check_no_levels_name(array: Path) -> None:
    """Raise BadInput if an array that is to be written has a name that the suite keeps for coarser levels."""
    if any(part.endswith("_levels") for part in Path(split_path(array)[1]).parts):
        raise BadInput(f"{array}: names that end in _levels are those of coarser levels, expected another")


def check_takes_levels(volume: Volume) -> None:
    """Raise BadInput for a volume that coarser levels cannot be written beside."""
    path = volume.path
    stored_as, _, name = find_format(path)
    if stored_as is not zarr or not name or isinstance(volume.array, OrderedArray) or levels_of(path)[0] != path:
        raise BadInput(f"{path}: expected an array in zarr with axes (c), z, y, x, as VOLUME.zarr/volumes/raw")
    others = [level for level in levels_of(path)[1:] if level.parent != levels_folder(path)]
    if others:
        raise BadInput(f"{path}: has levels of another program, as {others[0]}; expected an array without")


def list_levels(volume: Volume, coarser: Sequence[Volume], how: str) -> None:
    """Write the levels of a pyramid into the metadata of its group.

    Args:
        volume: The finest array.
        coarser: The other levels, in folders beside `volume`.
        how: The way in which they were made: `mean` or `mode`.
    """
    group = volume.path.parent
    levels = [Level(level.path.relative_to(group).as_posix(), tuple(level.voxel_size)) for level in (volume, *coarser)]
    channels = len(volume.shape) - volume.voxel_size.dims
    zarr.set_levels(volume.path, levels, tuple(volume.offset), channels, how)
