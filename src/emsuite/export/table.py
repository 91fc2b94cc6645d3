"""The table of segments: voxels, volume, box, centre, surface and cable length, and the same for neuroglancer.

segments.csv               a row for each segment, in order of ids; positions z, y, x in nm
segment_properties/info    what neuroglancer lists beside the segments
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.common.files import write_table
from emsuite.common.geometry import Coordinate, Roi, json_numbers
from emsuite.export.pieces import segment_begins

MEASURES = np.dtype([("segment", np.uint64), ("area", np.float64), ("cable", np.float64)])
"""What the shapes of a segment give: nm^2 and nm; NaN where it was not asked for."""
_POSITIONS = ("begin", "end", "centre")
COLUMNS = (
    "id",
    "voxels",
    "volume_nm3",
    *(f"{name}_{axis}_nm" for name in _POSITIONS for axis in "zyx"),
    "surface_area_nm2",
    "cable_length_nm",
)


def sum_rows(rows: np.ndarray) -> np.ndarray:
    """Return one row for each segment, of the rows of blocks in order of segments."""
    begins = segment_begins(rows)
    if len(begins) == 0:
        return rows
    summed = rows[begins]
    empty = (rows["voxels"] == 0)[:, None]  # of a segment that only reaches into the voxel behind the block
    farthest = np.iinfo(np.int64).max
    summed["voxels"] = np.add.reduceat(rows["voxels"], begins)
    summed["sum"] = np.add.reduceat(rows["sum"], begins)
    summed["low"] = np.minimum.reduceat(np.where(empty, farthest, rows["low"]), begins)
    summed["high"] = np.maximum.reduceat(np.where(empty, 0, rows["high"]), begins)
    return summed


def write_segments(path: Path, summed: np.ndarray, measures: np.ndarray, region: Roi, voxel_size: Coordinate) -> None:
    """Write the table.

    Args:
        path: The CSV file.
        summed: From `sum_rows`.
        measures: (N,) `MEASURES`, in the same order.
        region: nm.
        voxel_size: nm, z y x.
    """
    write_table(path, COLUMNS, _lines(summed, measures, region, voxel_size))


def _lines(summed: np.ndarray, measures: np.ndarray, region: Roi, voxel_size: Coordinate) -> Iterator[dict[str, Any]]:
    volume_nm3 = voxel_size[0] * voxel_size[1] * voxel_size[2]
    for row, measured in zip(summed, measures, strict=True):
        voxels = int(row["voxels"])
        low, high, total = (Coordinate(map(int, row[name])) for name in ("low", "high", "sum"))
        centre = [float(b + (n / voxels + 0.5) * s) for b, n, s in zip(region.begin, total, voxel_size, strict=True)]
        places = [
            *json_numbers(region.begin + low * voxel_size),
            *json_numbers(region.begin + high * voxel_size),
            *(round(n, 3) for n in centre),
        ]
        values = [int(row["segment"]), voxels, *json_numbers([voxels * volume_nm3]), *places]
        yield dict(zip(COLUMNS, [*values, *map(_rounded, (measured["area"], measured["cable"]))], strict=True))


def _rounded(value: float) -> Any:
    return "" if np.isnan(value) else round(float(value), 1)


def segment_properties(summed: np.ndarray, measures: np.ndarray, voxel_size: Coordinate) -> dict[str, Any]:
    """Return the info of neuroglancer's segment properties: volume, surface and cable length, in um."""
    um3 = float(voxel_size[0] * voxel_size[1] * voxel_size[2]) / 1e9
    values = {
        "volume": ("Volume, um^3", summed["voxels"] * um3),
        "surface_area": ("Surface, um^2", measures["area"] / 1e6),
        "cable_length": ("Cable length, um", measures["cable"] / 1e3),
    }
    shown = [
        {
            "id": name,
            "type": "number",
            "data_type": "float32",
            "description": meaning,
            "values": [float(np.float32(n)) for n in numbers],
        }
        for name, (meaning, numbers) in values.items()
        if not np.isnan(numbers).any()
    ]
    ids = [str(segment) for segment in summed["segment"]]
    return {"@type": "neuroglancer_segment_properties", "inline": {"ids": ids, "properties": shown}}
