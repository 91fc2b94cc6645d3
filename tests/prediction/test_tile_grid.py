"""Grids as large as any volume take memory for their axes alone."""

import itertools
import time
import tracemalloc
from pathlib import Path

import pytest

from emsuite.common.geometry import Coordinate, Roi
from emsuite.io.volume import open_volume
from emsuite.models.receptive_field import ReceptiveField
from emsuite.prediction.blending import Blended, GridWeights, linear
from emsuite.prediction.storage_layout import make_blended_layout, make_layout, share_out, share_rows
from emsuite.prediction.tile_grid import BlockTiles, Tile, TileGrid
from emsuite.prediction.tiling import BY_STRIDE, Original, Tiling

REACH = ReceptiveField((14, 14, 14), (4, 4, 4), (10, 10, 10), (5, 5, 5))
AXES = ([(0, 0, 4), (4, 5, 3)], [(0, 0, 2)], [(0, 1, 3), (2, 4, 2), (4, 6, 2)])


def test_a_grid_is_the_product_of_its_axes() -> None:
    grid = TileGrid(AXES)
    tiles = [Tile(*zip(*along, strict=True)) for along in itertools.product(*AXES)]
    assert (len(grid), grid.shape) == (6, (2, 1, 3))
    assert list(grid) == tiles == [grid[number] for number in range(6)]
    assert grid[4] == Tile((4, 0, 2), (5, 0, 4), (3, 2, 2))
    assert grid[-1] == tiles[-1]
    with pytest.raises(IndexError):
        grid[6]


def test_tiles_of_blocks_on_paper() -> None:
    """Tiles 2 x 1 x 3, numbered 0 1 2 | 3 4 5; blocks: both along z, and along x the first two, or the last two."""
    ranges = [[range(2)], [range(1)], [range(2), range(1, 3)]]
    blocks = BlockTiles((2, 1, 3), ranges)
    assert list(map(list, blocks)) == [[0, 1, 3, 4], [1, 2, 4, 5]]
    assert [(len(block), block.last) for block in blocks] == [(4, 4), (4, 5)]
    assert (len(blocks), blocks.total) == (2, 8)
    in_sums = BlockTiles((2, 1, 3), ranges, order=(2, 0, 1))
    assert list(map(list, in_sums)) == [[0, 3, 1, 4], [1, 4, 2, 5]]


def declared(path: Path, n: int) -> Path:
    """A volume of n voxels an axis that has metadata alone."""
    path.mkdir(parents=True)
    (path / ".zarray").write_text(
        f'{{"shape": [{n}, {n}, {n}], "chunks": [64, 64, 64], "dtype": "|u1", "fill_value": 0, "order": "C", '
        '"filters": null, "compressor": null, "zarr_format": 2}'
    )
    (path / ".zattrs").write_text('{"resolution": [8, 8, 8]}')
    return path


@pytest.mark.parametrize(
    "tiling", [BY_STRIDE, Original(), Original(valid=True), Blended("linear")], ids=lambda tiling: tiling.name
)
def test_a_volume_of_a_million_voxels_an_axis(tmp_path: Path, tiling: Tiling) -> None:
    raw = open_volume(declared(tmp_path / "v.zarr/raw", 10**6))
    whole, shape = Roi((0, 0, 0), raw.shape), (110, 110, 110)
    begin = time.monotonic()
    tracemalloc.start()
    try:
        tiles = tiling.grid(REACH, shape, tiling.whole(REACH, whole), tiling.whole(REACH, whole))
        assert len(tiles) >= 10**12
        if isinstance(tiling, Blended):
            layout = make_blended_layout((48, 48, 48), whole)
            share = share_rows(tiles, layout, whole, raw)
            assert GridWeights(tiles, (100, 100, 100), linear).of(tiles[-1]).shape == (100, 100, 100)
        else:
            layout = make_layout(tiles, tiling.whole(REACH, whole))
            share = share_out(tiles, layout, tiling.whole(REACH, whole), raw, 1)
            assert share.tiles.total == len(tiles)
        last = len(share.tiles) - 1
        assert share.grid.block(last).write.end <= raw.roi.end + Coordinate(1, 1, 1)
        assert share.tiles[last].last == len(tiles) - 1
        assert tracemalloc.get_traced_memory()[1] < 2**27
    finally:
        tracemalloc.stop()
    assert time.monotonic() - begin < 30
