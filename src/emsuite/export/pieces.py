"""Pieces of segments: what each block found of them, in files, and all pieces of one segment.

BLOCK.rows.npy       a row for each segment in the block: voxels, box, and how much of the other files is its own
BLOCK.mesh.npy       vertices, one segment behind the other;   BLOCK.faces.npy   their triangles
BLOCK.runs.npy       runs of voxels, if skeletons are made of them: see `runs`
all.npy, begins.npy  the rows of all blocks, by segment, and where each segment begins: when the blocks are done
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from emsuite.common.files import atomic_path
from emsuite.export.mesh import Mesh

PARTS: dict[str, tuple[type, int]] = {
    "mesh": (np.int32, 3),
    "faces": (np.int32, 3),
    "runs": (np.int32, 4),
}
ROW = np.dtype(
    [
        ("segment", np.uint64),
        ("block", np.int64),
        ("voxels", np.int64),
        ("low", np.int64, 3),  # the first voxel along z, y, x, from the begin of the region
        ("high", np.int64, 3),  # behind the last voxel
        ("sum", np.int64, 3),  # of the positions of voxels
        *((name, np.int64, 2) for name in PARTS),  # begin and end in the block's file
    ]
)


class Piece(NamedTuple):
    """What a block found of one segment, beside their number and box."""

    mesh: Mesh | None = None
    runs: np.ndarray | None = None
    """(N, 4) int32, see `runs.find_runs`."""


def write_pieces(folder: Path, block: int, rows: np.ndarray, pieces: Mapping[int, Piece]) -> None:
    """Write the rows (`ROW`) of a block and, by the number of the row, its pieces."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in PARTS}
    ends = dict.fromkeys(PARTS, 0)
    for number in range(len(rows)):
        piece = pieces.get(number, Piece())
        for name, values in zip(PARTS, (*(piece.mesh or (None, None)), piece.runs), strict=True):
            length = 0 if values is None else len(values)
            if values is not None and length:
                parts[name].append(values)
            rows[name][number] = ends[name], ends[name] + length
            ends[name] += length
    for name, (dtype, width) in PARTS.items():
        if parts[name]:
            _save(folder / f"{block}.{name}.npy", np.concatenate(parts[name]).astype(dtype).reshape(-1, width))
    _save(folder / f"{block}.rows.npy", rows)


def has_rows(folder: Path, block: int) -> bool:
    """Return whether the rows of a block exist, none for a block without segments."""
    return (folder / f"{block}.rows.npy").exists()


def gather_rows(folder: Path, blocks: Iterable[int]) -> np.ndarray:
    """Return the rows of all blocks, ordered by segment and block, and write them."""
    found = [np.load(path) for block in blocks if (path := folder / f"{block}.rows.npy").exists()]
    rows = np.concatenate([np.empty(0, ROW), *found])
    rows = rows[np.lexsort((rows["block"], rows["segment"]))]
    _save(folder / "all.npy", rows)
    _save(folder / "begins.npy", np.append(segment_begins(rows), len(rows)))
    return rows


def segment_begins(rows: np.ndarray) -> np.ndarray:
    """Return the first row of each segment, of rows that `gather_rows` has ordered."""
    new = np.ones(len(rows), bool)
    new[1:] = rows["segment"][1:] != rows["segment"][:-1]
    return np.flatnonzero(new)


def read_segment(folder: Path, number: int) -> np.ndarray:
    """Return the rows of a segment, by its place among all that `gather_rows` wrote."""
    begin, end = _whole(folder, "begins")[number : number + 2]
    return np.array(_whole(folder, "all")[begin:end])


def read_meshes(folder: Path, rows: np.ndarray) -> list[Mesh]:
    """Return the meshes of the pieces that rows name."""
    found = (tuple(_part(folder, row, name).astype(np.int64) for name in ("mesh", "faces")) for row in rows)
    return [Mesh(vertices, faces) for vertices, faces in found if len(faces)]


def read_runs(folder: Path, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the runs of voxels of the pieces that rows name."""
    return (_part(folder, row, "runs") for row in rows)


def _part(folder: Path, row: np.ndarray, name: str) -> np.ndarray:
    begin, end = row[name]
    dtype, width = PARTS[name]
    return _opened(folder, int(row["block"]), name)[begin:end] if end > begin else np.empty((0, width), dtype)


@lru_cache(maxsize=128)
def _opened(folder: Path, block: int, name: str) -> np.ndarray:
    return np.load(folder / f"{block}.{name}.npy", mmap_mode="r")


@lru_cache(maxsize=2)
def _whole(folder: Path, name: str) -> np.ndarray:
    return np.load(folder / f"{name}.npy", mmap_mode="r")


def forget() -> None:
    """Close the files that were read: an earlier run of this process may have read others of the same name."""
    _opened.cache_clear()
    _whole.cache_clear()


def _save(path: Path, array: np.ndarray) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array)
