"""Skeletons of segments (TEASAR, by kimimaro), their length, and how neuroglancer stores them.

    skeletons/info    the kind of skeletons
    skeletons/ID      the nodes and edges of a segment

A skeleton is made of all voxels of a segment at once. Positions are units, as those of meshes.

Sources: Sato et al. 2000 (TEASAR);
https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/skeletons.md
"""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from emsuite.export.mesh import UNITS
from emsuite.export.runs import Mask

INFO: dict[str, Any] = {
    "@type": "neuroglancer_skeletons",
    "transform": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0],
    "vertex_attributes": [{"id": "radius", "data_type": "float32", "num_components": 1}],
}
_LEAST_RADIUS_NM, _RADIUS_SCALE = 300, 1.5  # a branch ends what lies within this, and so many radii, of it
_ROUNDS = 6  # of smoothing before a length is measured


class Skeleton(NamedTuple):
    """Nodes and edges of one segment."""

    nodes: np.ndarray
    """(N, 3), x y z, units."""
    radius: np.ndarray
    """(N,) float32, nm: the distance to the nearest voxel of another segment."""
    edges: np.ndarray
    """(M, 2) int64, indices of nodes."""


def skeletonize(mask: Mask, voxel_size: Sequence[float]) -> Skeleton:
    """Return the skeleton of a segment: nodes at the centres of the mask's voxels, without those that have no edge.

    Args:
        mask: The voxels of the segment; those around it and behind the region count as background and as the segment.
        voxel_size: nm, x y z, of the finest voxels.
    """
    import kimimaro

    factors = mask.factors[::-1]
    sides = np.asarray(voxel_size, np.float64) * factors
    options = {"scale": _RADIUS_SCALE, "const": _LEAST_RADIUS_NM, "pdrf_scale": 100000, "pdrf_exponent": 4}
    somata = {"soma_detection_threshold": 750, "soma_acceptance_threshold": 3500}
    somata |= {"soma_invalidation_scale": 2, "soma_invalidation_const": 300}
    found = kimimaro.skeletonize(
        mask.inside.view(np.uint8).T,
        teasar_params=options | somata,
        anisotropy=tuple(sides),
        dust_threshold=0,
        progress=False,
        parallel=1,
    )
    if 1 not in found:
        return Skeleton(np.empty((0, 3), np.int64), np.empty(0, np.float32), np.empty((0, 2), np.int64))
    used, edges = np.unique(found[1].edges.astype(np.int64), return_inverse=True)
    voxels = np.rint(found[1].vertices[used] / sides).astype(np.int64) + mask.first[::-1]
    # a coarse voxel at the surface reaches beyond it, by half of what it is coarser on average
    beyond = float(((factors - 1) * voxel_size).min()) / 2
    radius = np.maximum(found[1].radius[used] - beyond, min(voxel_size) / 2).astype(np.float32)
    return Skeleton(voxels * UNITS * factors + UNITS * factors // 2, radius, edges.reshape(-1, 2))


def cable_length(skeleton: Skeleton, voxel_size: Sequence[float]) -> float:
    """Return the length of all edges in nm, along smoothed lines: steps from voxel to voxel are up to 13 % too long.

    Args:
        skeleton: Nodes with two neighbours move to the mean of themselves and both, several times; others stay.
        voxel_size: nm, x y z.
    """
    if len(skeleton.edges) == 0:
        return 0.0
    places = skeleton.nodes * np.asarray(voxel_size, np.float64) / UNITS
    near, far = skeleton.edges.T
    ends, others = np.concatenate([near, far]), np.concatenate([far, near])
    inner = np.flatnonzero(np.bincount(ends) == 2)
    neighbours = others[np.argsort(ends, kind="stable")]
    begins = np.searchsorted(np.sort(ends), inner)
    before, behind = neighbours[begins], neighbours[begins + 1]
    for _ in range(_ROUNDS):
        places[inner] = (places[before] + places[inner] + places[behind]) / 3
    return float(np.linalg.norm(places[far] - places[near], axis=1).sum())


def encode(skeleton: Skeleton, begin: Sequence[float], voxel_size: Sequence[float]) -> bytes:
    """Return the bytes of a skeleton whose units count from `begin`; both are nm, x y z."""
    positions = np.asarray(begin) + skeleton.nodes * np.asarray(voxel_size, np.float64) / UNITS
    parts = (positions.astype("<f4"), skeleton.edges.astype("<u4"), skeleton.radius.astype("<f4"))
    counts = struct.pack("<II", len(skeleton.nodes), len(skeleton.edges))
    return counts + b"".join(part.tobytes() for part in parts)
