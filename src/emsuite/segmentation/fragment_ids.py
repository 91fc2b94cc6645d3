"""The ids of fragments encode the block that made them.

    block   0           1              2                 V: voxels in a block of the full block size
    ids     1 ... V     V+1 ... 2V     2V+1 ... 3V       (smaller blocks, at the end of an axis, use fewer)

A block holds at most V fragments. So blocks can number their fragments independently and ids are still unique in the
volume, and the id of a fragment tells the block without a look into the volume. This module is the only place that
knows this rule.
"""

import numpy as np
from funlib.geometry import Coordinate

from emsuite.blockwise.grid import BlockGrid


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
