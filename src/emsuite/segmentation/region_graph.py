"""The region adjacency graph: fragments are nodes, contacts are edges; and the ids of fragments.

    block   0           1              2                 V: voxels in a block of the full block size
    ids     1 ... V     V+1 ... 2V     2V+1 ... 3V       (smaller blocks, at the end of an axis, use fewer)

A block holds at most V fragments. So blocks can number their fragments independently and ids are still unique in the
volume, and the id of a fragment tells the block without a look into the volume. This module is the only place that
knows this rule.
"""

from typing import NamedTuple

import numpy as np

from emsuite.blockwise.grid import BlockGrid
from emsuite.common.geometry import Coordinate

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


def ids_of_block(block_index: int, grid: BlockGrid, voxel_size: Coordinate) -> range:
    """Return all ids that fragments of one block can have.

    Args:
        block_index: The number of the block in `grid`.
        grid: The blocks in which the fragments were made, in nm.
        voxel_size: The voxel size of the fragments in nm.
    """
    voxels_per_block = int(np.prod(grid.block_size / voxel_size))
    return range(block_index * voxels_per_block + 1, (block_index + 1) * voxels_per_block + 1)


def to_volume_ids(labels: np.ndarray, ids: range) -> np.ndarray:
    """Return the ids in the whole volume (uint64) of fragments that are numbered within one block.

    Args:
        labels: Unsigned integers of any shape: fragments of the block from 1 up, 0 for background, which stays 0.
        ids: The ids of that block, from `ids_of_block`.
    """
    return np.where(labels > 0, labels + np.uint64(ids.start - 1), np.uint64(0))


def are_in_block(fragments: np.ndarray, ids: range) -> np.ndarray:
    """Return for each of `fragments` (uint64, any shape) whether the block with these `ids` made it, as bool."""
    return (fragments >= ids.start) & (fragments < ids.stop)
