"""The region adjacency graph: fragments are nodes, contacts of fragments are edges."""

from typing import NamedTuple

import numpy as np

NEAR = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
"""Offsets in voxels of the three affinities that decide on contacts: to the previous voxel in z, y and x."""


class Nodes(NamedTuple):
    """Fragments (N,): `id` uint64, never 0; `z`, `y`, `x` float64, the centre of mass in nm; `size` int64 in voxels."""

    id: np.ndarray
    z: np.ndarray
    y: np.ndarray
    x: np.ndarray
    size: np.ndarray


class Edges(NamedTuple):
    """Contacts (E,): `u` < `v` uint64, `score` float32, the threshold at which they merge (infinity: at none), and
    `contact` int64 in voxel faces."""

    u: np.ndarray
    v: np.ndarray
    score: np.ndarray
    contact: np.ndarray
