from types import SimpleNamespace

import numpy as np
import pytest

from emsuite.blockwise.grid import BlockGrid, block_aligned_chunk_shape, make_grid
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate, Roi


def volume(shape, voxel_size=(40, 8, 8), offset=(80, 0, 16)):
    size = Coordinate(voxel_size)
    return SimpleNamespace(roi=Roi(offset, Coordinate(shape) * size), voxel_size=size)


@pytest.mark.parametrize(
    ("shape", "block"), [((10, 30, 31), (4, 16, 16)), ((5, 5, 5), (5, 5, 5)), ((3, 7, 1), (2, 3, 4))]
)
def test_blocks_tile_the_volume_and_know_their_number(shape, block):
    source = volume(shape)
    grid = make_grid(source, Coordinate(block) * source.voxel_size, source.voxel_size)
    covered = np.zeros(shape, int)
    for number, found in enumerate(grid):
        begin = (found.write.begin - source.roi.begin) / source.voxel_size
        end = (found.write.end - source.roi.begin) / source.voxel_size
        covered[tuple(slice(b, e) for b, e in zip(begin, end, strict=True))] += 1
        assert found.index == number == grid.index_at((found.write.begin - source.roi.begin) / grid.block_size)
        assert found.read == found.write.grow(source.voxel_size, source.voxel_size).intersect(source.roi)
    assert (covered == 1).all()


def test_without_a_block_size_the_volume_is_one_block():
    (only,) = make_grid(volume((10, 30, 30)), None, (40, 8, 8))
    assert only.write == only.read == volume((10, 30, 30)).roi


def test_the_default_context_is_a_quarter_of_the_block():
    assert make_grid(volume((99, 99, 99)), (400, 80, 96), None).context == (80, 16, 24)


@pytest.mark.parametrize(("block", "context"), [((400, 84, 80), None), ((400, 80, 80), (40, 8, 4)), ((400, 80), None)])
def test_sizes_that_are_no_whole_voxels_are_refused(block, context):
    with pytest.raises(BadInput, match=r"expected multiples of the voxel size \(40, 8, 8\)"):
        make_grid(volume((99, 99, 99)), block, context)


@pytest.mark.parametrize("block", [(1, 7, 64), (100, 96, 250), (131, 128, 63)])
def test_blocks_are_made_of_whole_chunks(block):
    grid = BlockGrid(Roi((0, 0, 0), (1000, 1000, 1000)), Coordinate(block), Coordinate(0, 0, 0))
    assert all(
        size % chunk == 0
        for size, chunk in zip(block, block_aligned_chunk_shape(grid, Coordinate(1, 1, 1)), strict=True)
    )


def test_chunks_of_a_single_block_do_not_depend_on_its_size():
    grid = BlockGrid(Roi((0, 0, 0), (131, 250, 20)), Coordinate(131, 250, 20), Coordinate(0, 0, 0))
    assert block_aligned_chunk_shape(grid, Coordinate(1, 1, 1)) == [64, 64, 20]


@pytest.mark.parametrize("voxels", [10**7, 10**12])
def test_volumes_of_absurd_sizes_are_refused_before_anything_is_as_long_as_they_are(voxels: int) -> None:
    with pytest.raises(BadInput, match=r"blocks of .* nm, expected at most 1e\+09"):
        BlockGrid(Roi((0, 0, 0), (8 * voxels,) * 3), Coordinate(512, 512, 512), Coordinate(0, 0, 0))
