"""Triangular meshes of labels: made from blocks of voxels, joined without seams, simplified, measured, cut by planes.

    voxels    |  0  |  1  |  2  |        Positions are integers, x y z: 64ths of a voxel, from the corner of the first
    units     0    64   128   192        voxel of the region. The vertices of two blocks that meet are then equal.

Marching cubes (zmesh) runs between the centres of voxels; a block reads one voxel of the block behind it. zmesh's
simplification (quadric edge collapse) keeps the vertices at open borders, so that pieces of blocks fit. pyfqmr makes
the levels of detail of whole segments: its collapses keep a mesh closed.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

UNITS = 64
"""Of positions, to the length of a voxel."""
BLOCK_ERROR = 0.5
"""How far the simplification of a block moves a vertex at most, in the shortest side of a voxel."""
_MOST = 100  # the factor of triangles that simplification aims at; the error limits it first
_LEVEL_FACTOR = 4  # triangles of a level of detail to those of the next
_AGGRESSIVENESS = 5.5  # how fast errors may grow while triangles are merged
_FEWEST = 4  # triangles of a closed mesh
_ROUNDS = 3  # of averaging normals
_LEAST_COSINE = 0.5  # between a triangle and the surface that it stands for


class Mesh(NamedTuple):
    """Vertices and triangles; seen from outside, the corners of a triangle run counter-clockwise."""

    vertices: np.ndarray
    """(N, 3) int64, x y z, units."""
    faces: np.ndarray
    """(M, 3) int64, indices of vertices."""


def mesh_labels(labels: np.ndarray, scale: Sequence[float]) -> Iterator[tuple[int, Mesh]]:
    """Yield the simplified mesh of each label, in order of labels; open where a label meets the end of the array.

    Args:
        labels: (Z, Y, X) uint32; 0 is background.
        scale: The sides of a voxel, x y z, in its shortest side.

    Yields:
        A label, and its mesh in units from the corner of the first voxel.
    """
    from zmesh import Mesher

    mesher = Mesher(tuple(scale))
    mesher.mesh(np.ascontiguousarray(labels).T)
    for label in sorted(mesher.ids()):
        made = mesher.get(label, reduction_factor=_MOST, max_error=BLOCK_ERROR)
        mesher.erase(label)
        voxels = made.vertices.astype(np.float64) / np.asarray(scale) + 0.5
        yield int(label), clean(np.rint(voxels * UNITS).astype(np.int64), made.faces.astype(np.int64))


def join(pieces: Sequence[Mesh]) -> Mesh:
    """Return one mesh of several, in which equal vertices are one."""
    first = np.cumsum([0, *(len(piece.vertices) for piece in pieces)])
    faces = [piece.faces + begin for piece, begin in zip(pieces, first, strict=False)]
    return clean(np.concatenate([piece.vertices for piece in pieces]), np.concatenate(faces))


def simplify(mesh: Mesh, scale: Sequence[float]) -> Mesh:
    """Return the mesh with about a quarter of its triangles.

    Args:
        mesh: A closed mesh.
        scale: The sides of a voxel, x y z, in its shortest side.

    Returns:
        A closed mesh; the same one if nothing would be left of it.
    """
    import pyfqmr

    begin = mesh.vertices.min(axis=0)
    to_units = UNITS / np.asarray(scale)
    simplifier = pyfqmr.Simplify()
    simplifier.setMesh((mesh.vertices - begin) / to_units, mesh.faces.astype(np.int32))
    target = len(mesh.faces) // _LEVEL_FACTOR
    simplifier.simplify_mesh(target, aggressiveness=_AGGRESSIVENESS, preserve_border=False, verbose=False)
    vertices, faces, _ = simplifier.getMesh()
    simple = clean(np.rint(vertices * to_units).astype(np.int64) + begin, faces.astype(np.int64))
    return simple if len(simple.faces) >= _FEWEST else mesh


def surface_area(mesh: Mesh, voxel_size: Sequence[float]) -> float:
    """Return the area of the surface that a mesh of voxels stands for.

    The triangles of marching cubes are a staircase, whose area is up to a tenth too large. Each triangle is therefore
    projected onto the surface, whose normal is averaged over its neighbours: exact for planes in any direction.

    Args:
        mesh: A closed mesh.
        voxel_size: nm, x y z.

    Returns:
        nm^2; of thin sheets and single voxels, at least half of the triangles' own area.
    """
    corners = (mesh.vertices * np.asarray(voxel_size) / UNITS)[mesh.faces]
    areas = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2
    normals = areas
    for _ in range(_ROUNDS):
        sums = np.stack([_sum_at(mesh, normals[:, axis]) for axis in range(3)], axis=1)
        normals = sums[mesh.faces].sum(axis=1)
        lengths = np.linalg.norm(normals, axis=1, keepdims=True)
        normals = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
        normals *= np.linalg.norm(areas, axis=1, keepdims=True)
    own = np.linalg.norm(areas, axis=1)
    cosines = np.divide((areas * normals).sum(axis=1), own**2, out=np.zeros_like(own), where=own > 0)
    return float((own * np.maximum(cosines, _LEAST_COSINE)).sum())


def cut(mesh: Mesh, step: Sequence[int]) -> Mesh:
    """Return the mesh with triangles split where they cross a plane.

    Args:
        mesh: Any mesh.
        step: Units between planes along x, y and z; the first plane lies at 0.

    Returns:
        The same surface. Triangles that share an edge are split at the same vertex.
    """
    for axis, width in enumerate(step):
        along = mesh.vertices[:, axis][mesh.faces]
        low, high = along.min(axis=1) // width, -(-along.max(axis=1) // width)
        crossing = high - low > 1
        whole, parts = mesh.faces[~crossing], Mesh(mesh.vertices, mesh.faces[crossing])
        for number in range(low.min(initial=0) + 1, high.max(initial=0)):
            parts = _cut_at(parts, axis, number * width)
        mesh = Mesh(parts.vertices, np.concatenate([whole, parts.faces]))
    return mesh


def _cut_at(mesh: Mesh, axis: int, plane: int) -> Mesh:
    sides = np.sign(mesh.vertices[:, axis] - plane)[mesh.faces]
    crossing = (sides.min(axis=1) < 0) & (sides.max(axis=1) > 0)
    if not crossing.any():
        return mesh
    sides, faces = sides[crossing], mesh.faces[crossing]
    touches = (sides == 0).any(axis=1)
    # first the corner that is alone on its side; or, if one lies on the plane, that one
    first = np.where(
        touches, (sides == 0).argmax(axis=1), (sides * sides.sum(axis=1, keepdims=True) < 0).argmax(axis=1)
    )
    a, b, c = np.take_along_axis(faces, (first[:, None] + np.arange(3)) % 3, axis=1).T
    two, one = ~touches, touches
    starts, ends = np.concatenate([a[two], a[two], b[one]]), np.concatenate([b[two], c[two], c[one]])
    vertices, met = _meet(mesh.vertices, starts, ends, axis, plane)
    p, q, r = np.split(met, [two.sum(), 2 * two.sum()])
    a2, b2, c2, a1, b1, c1 = a[two], b[two], c[two], a[one], b[one], c[one]
    new = [(a2, p, q), (p, b2, c2), (p, c2, q), (a1, b1, r), (a1, r, c1)]
    return Mesh(vertices, np.concatenate([mesh.faces[~crossing], *(np.stack(face, axis=1) for face in new)]))


def _meet(
    vertices: np.ndarray, starts: np.ndarray, ends: np.ndarray, axis: int, plane: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the vertices with those where edges meet a plane, once for each edge, and the index of each edge's."""
    keys = np.minimum(starts, ends) * len(vertices) + np.maximum(starts, ends)
    edges, inverse = np.unique(keys, return_inverse=True)
    near, far = vertices[edges // len(vertices)], vertices[edges % len(vertices)]
    share = (plane - near[:, axis]) / (far[:, axis] - near[:, axis])
    points = near + np.rint((far - near) * share[:, None]).astype(np.int64)
    points[:, axis] = plane
    return np.concatenate([vertices, points]), inverse.reshape(-1) + len(vertices)


def clean(vertices: np.ndarray, faces: np.ndarray) -> Mesh:
    """Return a mesh whose vertices are in order, each once and in use, without triangles of two corners."""
    order = np.lexsort(vertices.T)
    ordered = vertices[order]
    begins = np.ones(len(ordered), bool)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    place = np.empty(len(vertices), np.int64)
    place[order] = np.cumsum(begins) - 1
    faces = place[faces].reshape(-1, 3)
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (c != a)]
    used = np.zeros(int(begins.sum()), bool)
    used[faces] = True
    return Mesh(ordered[begins][used], (np.cumsum(used) - 1)[faces])


def _sum_at(mesh: Mesh, values: np.ndarray) -> np.ndarray:
    return np.bincount(mesh.faces.reshape(-1), np.repeat(values, 3), len(mesh.vertices))
