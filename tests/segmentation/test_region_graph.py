import numpy as np
import pytest

from emsuite.blockwise.grid import BlockGrid
from emsuite.common.geometry import Coordinate, Roi
from emsuite.segmentation.region_graph import are_in_block, ids_of_block, to_volume_ids

VOXEL_SIZE = Coordinate(8, 4, 4)
GRID = BlockGrid(Roi((0, 0, 0), (40, 32, 28)), Coordinate(16, 16, 16), Coordinate(0, 0, 0))


def test_blocks_share_all_ids_from_1_up_without_gaps():
    ids = [i for block in GRID for i in ids_of_block(block.index, GRID, VOXEL_SIZE)]
    assert ids == list(range(1, len(GRID) * 2 * 4 * 4 + 1))


@pytest.mark.parametrize("index", [0, 1, 11])
def test_the_id_of_a_fragment_tells_its_block(index):
    labels = np.arange(33, dtype=np.uint32).reshape(3, 11)  # as many fragments as a block has voxels
    ids = to_volume_ids(labels, ids_of_block(index, GRID, VOXEL_SIZE))
    assert ids.dtype == np.uint64
    assert ids[0, 0] == 0
    for block in GRID:
        inside = are_in_block(ids, ids_of_block(block.index, GRID, VOXEL_SIZE))
        np.testing.assert_array_equal(inside, (labels > 0) & (block.index == index))


def test_ids_above_those_of_int32_are_exact():
    ids = range(2**40 + 1, 2**40 + 33)
    assert to_volume_ids(np.array([0, 1, 32], np.uint32), ids).tolist() == [0, 2**40 + 1, 2**40 + 32]
