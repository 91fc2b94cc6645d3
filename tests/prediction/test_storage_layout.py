"""Chunks, shards and the blocks of workers of a prediction, on paper."""

from pathlib import Path

import numpy as np
import pytest

from emsuite.common.geometry import Roi
from emsuite.io.volume import create_volume
from emsuite.models.receptive_field import ReceptiveField
from emsuite.prediction.blending import Blended
from emsuite.prediction.storage_layout import Layout, make_blended_layout, make_layout, share_out, share_rows
from emsuite.prediction.tile_grid import TileGrid
from emsuite.prediction.tiling import BY_STRIDE, Original, Tiling

# along each axis: inputs of 14, 18, 22, ... voxels; 4, 8, 12, ... come out
REACH = ReceptiveField((14, 14, 14), (4, 4, 4), (10, 10, 10), (5, 5, 5))


def row(*begins: int) -> TileGrid:
    return TileGrid([[(0, 0, 1)], [(0, 0, 1)], [(begin, begin, 1) for begin in begins]])


def test_shards_hold_what_is_kept_of_a_tile() -> None:
    assert make_layout(row(0, 192, 384), Roi((0, 0, 0), (5, 5, 400))) == Layout((5, 5, 64), (5, 5, 192), (5, 5, 192))
    assert make_layout(row(7, 277), Roi((0, 0, 7), (5, 5, 400))).chunk[2] == 54  # of 270
    assert make_layout(row(0, 61), Roi((0, 0, 0), (5, 5, 100))) == Layout((5, 5, 61), (5, 5, 61), (5, 5, 61))


def test_one_tile_may_hold_all() -> None:
    assert make_layout(row(0), Roi((0, 0, 0), (5, 64, 250))) == Layout((5, 64, 64), (5, 64, 256), (5, 64, 250))


def test_tiles_that_do_not_fit_into_a_grid_share_chunks() -> None:
    """The first one is cut, or the last but one."""
    for tiles, n in ((row(0, 30, 90), 100), (row(0, 20), 80), (row(0, 60, 90), 150)):
        assert make_layout(tiles, Roi((0, 0, 0), (5, 5, n))) == Layout((5, 5, 64), (5, 5, 64), (5, 5, n))


@pytest.mark.parametrize("tiling", [BY_STRIDE, Original(), Original(valid=True)], ids=lambda tiling: tiling.name)
@pytest.mark.parametrize("begin", [(0, 0, 0), (3, 5, 9)])
def test_no_two_blocks_write_into_the_same_shard(tmp_path: Path, tiling: Tiling, begin: tuple[int, ...]) -> None:
    whole, roi = Roi((0, 0, 0), (40, 41, 60)), Roi(begin, (30, 17, 50))
    raw = create_volume(tmp_path / "v.zarr/raw", whole.shape, np.uint8, (2, 2, 2), (10, 10, 10))
    tiles = tiling.grid(REACH, (18, 22, 22), whole, roi)
    layout = make_layout(tiles, roi)
    share = share_out(tiles, layout, roi, raw, 2)
    assert sorted(number for block in share.tiles for number in block) == list(range(len(tiles)))
    owner: dict[tuple[int, ...], int] = {}
    for index, numbers in enumerate(share.tiles):
        write_nm = share.grid.block(index).write
        for number in numbers:
            kept = Roi(tiles[number].keep_begin, tiles[number].keep_shape)
            assert write_nm.contains(Roi(raw.offset + kept.offset * 2, kept.shape * 2))
            shards = [range((low - b) // s, (high - 1 - b) // s + 1)
                      for low, high, b, s in zip(kept.begin, kept.end, begin, layout.shard, strict=True)]  # fmt: skip
            for shard in ((z, y, x) for z in shards[0] for y in shards[1] for x in shards[2]):
                assert owner.setdefault(shard, index) == index
    if tiling == BY_STRIDE:
        assert len(share.tiles) >= 8


def test_blended_shards_are_as_wide_as_tiles_advance() -> None:
    roi = Roi((3, 0, 7), (100, 260, 90))
    assert make_blended_layout((30, 135, 90), roi) == Layout((30, 45, 64), (30, 135, 128), (30, 135, 90))


@pytest.mark.parametrize("begin", [(0, 0, 0), (3, 5, 9)])
def test_rows_hold_all_tiles_that_reach_into_them_in_the_order_of_sums(tmp_path: Path, begin: tuple[int, ...]) -> None:
    """Shards of 4x8x8 voxels: of 10 along z and 6 along y, rows of 4, 3 and 3, and of 3 and 3."""
    whole, roi = Roi((0, 0, 0), (50, 60, 70)), Roi(begin, (40, 41, 60))
    raw = create_volume(tmp_path / "v.zarr/raw", whole.shape, np.uint8, (2, 2, 2), (10, 10, 10))
    tiles = Blended("linear").grid(REACH, (18, 22, 22), whole, roi)
    layout = make_blended_layout((4, 8, 8), roi)
    share = share_rows(tiles, layout, roi, raw)
    assert tuple(share.grid.shape) == (3, 2, 1)
    assert tuple(share.grid.block_size / 2) == (16, 24, 60)
    for block, numbers in zip(share.grid, share.tiles, strict=True):
        region = Roi((block.write.offset - raw.offset) / 2, block.write.shape / 2)
        reaching = [n for n, tile in enumerate(tiles) if Roi(tile.keep_begin, tile.keep_shape).intersects(region)]
        assert sorted(numbers) == reaching
        begins = [tiles[number].begin for number in numbers]
        assert begins == sorted(begins, key=lambda tile: (tile[2], tile[0], tile[1]))
