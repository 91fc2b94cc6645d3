"""The region adjacency graph in memory: a table of its nodes and a table of its edges.

    Nodes    a row per fragment                              id | z, y, x of its centre | size
    Edges    a row per pair of fragments that share faces    u < v | score | contact

A score is a threshold: the segments at a threshold are the connected components of all edges whose score is not above
it. `graph_tables` stores both tables on disk. This module opens no files, so that the mathematics can import it.
"""

from typing import NamedTuple

import numpy as np

NEAR = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
"""Offsets in voxels of the three affinities that decide on contacts: to the previous voxel in z, y and x."""


class Nodes(NamedTuple):
    """The fragments, one entry per fragment in each array (N,).

    Attributes:
        id: uint64, never 0, which is background.
        z, y, x: float64, the centre of mass in nm.
        size: int64, the number of voxels.
    """

    id: np.ndarray
    z: np.ndarray
    y: np.ndarray
    x: np.ndarray
    size: np.ndarray


class Edges(NamedTuple):
    """The contacts of fragments, one entry per pair of touching fragments in each array (E,).

    Attributes:
        u, v: uint64, the ids of the two fragments, u < v.
        score: float32, the lowest threshold (0 to 1) at which both belong to one segment; infinity if they never do.
        contact: int64, the number of voxel faces that they share.
    """

    u: np.ndarray
    v: np.ndarray
    score: np.ndarray
    contact: np.ndarray
