"""Skeletons of labels (TEASAR, by kimimaro): made from blocks of voxels, joined, and as neuroglancer stores them.

    skeletons/info    the kind of skeletons
    skeletons/ID      the nodes and edges of a segment

A block reads one voxel of the block behind it. In a face that two blocks share, both end their branches at the same
voxel, so that equal nodes join the pieces. Positions are units, as those of meshes. Sources: Sato et al. 2000 (TEASAR);
https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/skeletons.md
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree

from emsuite.export.mesh import UNITS

INFO: dict[str, Any] = {
    "@type": "neuroglancer_skeletons",
    "transform": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0],
    "vertex_attributes": [{"id": "radius", "data_type": "float32", "num_components": 1}],
}
_LEAST_RADIUS_NM, _RADIUS_SCALE = 300, 1.5  # a branch ends what lies within this, and so many radii, of it


class Skeleton(NamedTuple):
    """Nodes and edges of one segment."""

    nodes: np.ndarray
    """(N, 3), x y z, units."""
    radius: np.ndarray
    """(N,) float32, nm: the distance to the nearest voxel of another segment."""
    edges: np.ndarray
    """(M, 2) int64, indices of nodes."""


def skeletonize(labels: np.ndarray, voxel_size: Sequence[float]) -> Iterator[tuple[int, Skeleton]]:
    """Yield the skeleton of each label, in order of labels; nodes lie at the centres of voxels.

    Args:
        labels: (Z, Y, X) uint32; 0 is background.
        voxel_size: nm, x y z.
    """
    import kimimaro

    options = {"scale": _RADIUS_SCALE, "const": _LEAST_RADIUS_NM, "pdrf_scale": 100000, "pdrf_exponent": 4}
    somata = {"soma_detection_threshold": 750, "soma_acceptance_threshold": 3500}
    somata |= {"soma_invalidation_scale": 2, "soma_invalidation_const": 300}
    found = kimimaro.skeletonize(
        np.ascontiguousarray(labels).T,
        teasar_params=options | somata,
        anisotropy=tuple(voxel_size),
        dust_threshold=0,
        progress=False,
        parallel=1,
    )
    for label in sorted(found):
        made = found[label]
        voxels = np.rint(made.vertices / np.asarray(voxel_size, np.float64)).astype(np.int64)
        yield int(label), Skeleton(voxels * UNITS + UNITS // 2, made.radius, made.edges.astype(np.int64))


def join(pieces: Sequence[Skeleton], voxel_size: Sequence[float]) -> Skeleton:
    """Return one skeleton of several: equal nodes are one, and circles that joining makes are opened.

    Args:
        pieces: Skeletons of blocks.
        voxel_size: nm, x y z.

    Returns:
        A forest, of the same connected parts, that leaves out the longest edge of each circle. Nodes without an edge
        are left out.
    """
    first = np.cumsum([0, *(len(piece.nodes) for piece in pieces)])
    edges = np.concatenate([piece.edges + begin for piece, begin in zip(pieces, first, strict=False)])
    nodes, place = np.unique(np.concatenate([piece.nodes for piece in pieces]), axis=0, return_inverse=True)
    radius = np.zeros(len(nodes), np.float32)
    np.maximum.at(radius, place.reshape(-1), np.concatenate([piece.radius for piece in pieces]))
    ends = np.sort(place.reshape(-1)[edges].reshape(-1, 2), axis=1)
    ends = np.unique(ends[ends[:, 0] != ends[:, 1]], axis=0)
    near, far = ends.T
    lengths = np.linalg.norm((nodes[far] - nodes[near]) * np.asarray(voxel_size, np.float64), axis=1)
    forest = minimum_spanning_tree(coo_array((lengths, (near, far)), shape=(len(nodes), len(nodes)))).tocoo()
    ends = np.stack([forest.row, forest.col], axis=1).astype(np.int64)
    ends = ends[np.lexsort((ends[:, 1], ends[:, 0]))]
    used = np.unique(ends)
    return Skeleton(nodes[used], radius[used], np.searchsorted(used, ends))


def cable_length(skeleton: Skeleton, voxel_size: Sequence[float]) -> float:
    """Return the length of all edges in nm; `voxel_size` is nm, x y z."""
    ends = skeleton.nodes[skeleton.edges] * np.asarray(voxel_size, np.float64) / UNITS
    return float(np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1).sum()) if len(ends) else 0.0


def encode(skeleton: Skeleton, begin: Sequence[float], voxel_size: Sequence[float]) -> bytes:
    """Return the bytes of a skeleton whose units count from `begin`; both are nm, x y z."""
    positions = np.asarray(begin) + skeleton.nodes * np.asarray(voxel_size, np.float64) / UNITS
    parts = (positions.astype("<f4"), skeleton.edges.astype("<u4"), skeleton.radius.astype("<f4"))
    counts = struct.pack("<II", len(skeleton.nodes), len(skeleton.edges))
    return counts + b"".join(part.tobytes() for part in parts)
