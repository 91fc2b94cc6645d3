"""Voxel size, offset and order of axes, as far as the groups above an array say them.

Such metadata lie outside the folder of the array, so that the state of its files does not tell of edits.
"""

import json
from pathlib import Path
from typing import Any

from emsuite.common.errors import BadInput
from emsuite.common.geometry import json_numbers
from emsuite.io.formats.zarr_chunks import read_plain
from emsuite.io.volume import holds_array, open_stored, open_volume

_OWN = ("zarr.json", ".zattrs", "attributes.json")


def told_above(path: Path) -> str:
    """Return a text that changes with what groups above an array, in files here, say of its place.

    Args:
        path: The folder of an array, or another folder.

    Returns:
        Nothing for an array whose own attributes say the same, as those of the suite, and for what cannot be opened.
    """
    if not any((path / name).is_file() for name in (*_OWN, ".zarray")):
        return ""
    try:
        if not holds_array(path):
            return ""
        stored = open_stored(path)
        volume = open_volume(path)
    except BadInput:  # reading it tells the user
        return ""
    order = [int(axis) for axis in getattr(stored.array, "axes", ())]
    grid = [json_numbers(volume.voxel_size), json_numbers(volume.offset)]
    own = _own_attributes(path)
    if not order and [own.get("voxel_size", own.get("resolution")), own.get("offset")] == grid:
        return ""
    return json.dumps([order, *grid])


def _own_attributes(path: Path) -> dict[str, Any]:
    """Return the attributes in the documents of an array itself."""
    for name in _OWN:
        if (path / name).is_file():
            document = json.loads(read_plain(path / name))
            attributes = document.get("attributes", {}) if name == "zarr.json" else document
            return attributes if isinstance(attributes, dict) else {}
    return {}
