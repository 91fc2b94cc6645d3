"""Meshes in several levels of detail, as neuroglancer's precomputed format stores them (multilod_draco, unsharded).

    mesh/info        the kind of meshes
    mesh/ID.index    manifest of a segment: levels, and the cells of an octree at each level
    mesh/ID          the triangles of each cell, packed by Draco, one behind the other

Cells of level 0 are `cells` voxels long; those of the next level twice as long. Source of the format:
https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/meshes.md
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from emsuite.export.mesh import UNITS, Mesh, clean, cut, simplify

_BITS = 16
_LARGEST = 2**_BITS - 1
_CELL = 128  # voxels of the shortest side, along a cell of level 0
_MOST_BITS = 20  # of the position of a cell along an axis
INFO: dict[str, Any] = {
    "@type": "neuroglancer_multilod_draco",
    "vertex_quantization_bits": _BITS,
    "transform": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0],
    "lod_scale_multiplier": 1,
}


@dataclass(frozen=True)
class Space:
    """Where units lie in the world, and the cells of level 0; all x y z."""

    begin: tuple[float, float, float]
    """nm, of the corner of the first voxel."""
    voxel_size: tuple[float, float, float]
    """nm."""

    @property
    def scale(self) -> np.ndarray:
        """The sides of a voxel in its shortest side."""
        return np.array(self.voxel_size) / min(self.voxel_size)

    @property
    def cell(self) -> np.ndarray:
        """The sides of a cell of level 0, int64, units: whole voxels."""
        return np.maximum(1, np.rint(_CELL / self.scale)).astype(np.int64) * UNITS


def levels_of_detail(mesh: Mesh, space: Space, levels: int) -> list[Mesh]:
    """Return the mesh and `levels` - 1 simpler ones, each made from the one before it."""
    made = [mesh]
    for _ in range(1, levels):
        made.append(simplify(made[-1], space.scale.tolist()))
    return made


def encode(meshes: Sequence[Mesh], space: Space) -> tuple[bytes, bytes]:
    """Return the manifest and the packed triangles of a segment, of its levels of detail, the finest first."""
    widest = space.cell * 2 ** (len(meshes) - 1)
    lowest = np.min([mesh.vertices.min(axis=0) for mesh in meshes], axis=0)
    origin = lowest // widest * widest
    cells = [_cells(mesh, space.cell * 2**level, origin, level) for level, mesh in enumerate(meshes)]
    for finer, coarser in pairwise(cells):
        for x, y, z in finer:
            coarser.setdefault((x // 2, y // 2, z // 2), b"")  # the octree needs each parent, even an empty one
    nm = np.array(space.voxel_size) / UNITS
    manifest = [
        (space.cell * nm).astype("<f4").tobytes(),
        (np.array(space.begin) + origin * nm).astype("<f4").tobytes(),
        struct.pack("<I", len(meshes)),
        (min(space.voxel_size) * 2.0 ** np.arange(len(meshes))).astype("<f4").tobytes(),
        np.zeros((len(meshes), 3), "<f4").tobytes(),
        np.array([len(level) for level in cells], "<u4").tobytes(),
    ]
    packed = []
    for level in cells:
        places = sorted(level, key=z_curve)
        manifest += [np.array(places, "<u4").T.tobytes(), np.array([len(level[at]) for at in places], "<u4").tobytes()]
        packed += [level[at] for at in places]
    return b"".join(manifest), b"".join(packed)


def z_curve(cell: Sequence[int]) -> int:
    """Return the place of a cell (x, y, z) on the Z-curve: its bits in turn, those of x the lowest."""
    return sum((int(n) >> bit & 1) << 3 * bit + axis for axis, n in enumerate(cell) for bit in range(_MOST_BITS))


def _cells(mesh: Mesh, cell: np.ndarray, origin: np.ndarray, level: int) -> dict[tuple[int, int, int], bytes]:
    """Return the packed triangles of each cell."""
    step = cell // 2 if level else cell  # neuroglancer shows eighths of the cells above level 0
    parts = cut(Mesh(mesh.vertices - origin, mesh.faces), step.tolist())
    places = parts.vertices[parts.faces].sum(axis=1) // (3 * cell)
    order = np.lexsort(places.T)
    different = (np.diff(places[order], axis=0) != 0).any(axis=1)
    cells = {}
    for rows in np.split(order, np.flatnonzero(different) + 1):
        at = places[rows[0]]
        used, corners = np.unique(parts.faces[np.sort(rows)], return_inverse=True)
        cells[tuple(at.tolist())] = _pack(parts.vertices[used], corners.reshape(-1, 3), at * cell, cell)
    return cells


def _pack(vertices: np.ndarray, faces: np.ndarray, begin: np.ndarray, cell: np.ndarray) -> bytes:
    """Return the triangles of a cell; none if all of them are narrower than the steps of positions."""
    import DracoPy

    inside = np.clip(np.rint((vertices - begin) / cell * _LARGEST), 0, _LARGEST).astype(np.int64)
    packed = clean(inside, faces)
    if len(packed.faces) == 0:
        return b""
    # neuroglancer takes positions that are int32, each of them once
    points, corners = packed.vertices.astype(np.int32), packed.faces.astype(np.uint32)
    return bytes(DracoPy.encode(points, corners, compression_level=7))
