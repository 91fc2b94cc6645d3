"""Tiles by hand."""

import numpy as np
import pytest

from emsuite.plates.statistics import Where
from emsuite.plates.tiles import kept_tiles, tile_rows, tile_starts, tiles_of


def test_the_last_tile_is_moved_inside() -> None:
    assert tile_starts(10, 4, 4) == [0, 4, 6]
    assert tile_starts(8, 4, 4) == [0, 4]
    assert tile_starts(4, 4, 1) == [0]
    assert tile_starts(9, 4, 3) == [0, 3, 5]
    with pytest.raises(ValueError, match="3 voxels along an axis, expected at least the 4 of a tile"):
        tile_starts(3, 4, 4)


def test_tiles_of_slices_and_of_volumes() -> None:
    flat = [tuple(part.start for part in box) for box in tiles_of((2, 6, 5), (4, 5), None)]
    assert flat == [(0, 0, 0), (0, 2, 0), (1, 0, 0), (1, 2, 0)]
    deep = list(tiles_of((3, 4, 8), (2, 4, 4), (1, 4, 4)))
    assert [tuple(part.start for part in box) for box in deep] == [(0, 0, 0), (0, 0, 4), (1, 0, 0), (1, 0, 4)]
    assert all(np.zeros((3, 4, 8))[box].shape == (2, 4, 4) for box in deep)


def test_every_voxel_lies_in_a_tile() -> None:
    seen = np.zeros((5, 23, 17), int)
    for box in tiles_of(seen.shape, (2, 6, 5), (2, 4, 5)):
        seen[box] += 1
    assert seen.min() >= 1


def test_statistics_and_foreground_of_tiles() -> None:
    volume = np.arange(32.0).reshape(1, 4, 8)
    mask = np.zeros((1, 4, 8), bool)
    mask[0, 0, 4:] = True
    boxes = list(tiles_of(volume.shape, (4, 4), None))
    first, second = tile_rows(volume, Where("A/1/0", 1, 2), boxes, mask, (0, 100), np.zeros(1, bool))
    assert (first.scope, first.position, first.time, first.channel, first.z, first.y, first.x) == (
        "tile",
        "A/1/0",
        1,
        2,
        0,
        0,
        0,
    )
    assert (first.mean, first.low, first.high, first.foreground) == (volume[0, :, :4].mean(), 0, 27, 0)
    assert (second.x, second.std, second.foreground) == (4, volume[0, :, 4:].std(), 0.25)
    assert tile_rows(volume, Where("A/1/0", 0, 0), boxes, None, (0, 100), np.zeros(1, bool))[0].foreground == ""
    assert kept_tiles(mask, boxes, 0.25) == boxes[1:]
    assert kept_tiles(mask, boxes, 0.0) == boxes


def test_a_tile_of_one_value_counts_unless_its_section_is_empty() -> None:
    volume = np.zeros((2, 4, 8))
    volume[0, :, :4] = 0.1
    boxes = list(tiles_of(volume.shape, (4, 4), None))
    rows = tile_rows(volume, Where("A/1/0", 0, 0), boxes, None, (0, 100), np.array([False, True]))
    assert [(row.voxels, row.empty) for row in rows] == [(16, 0), (16, 0), (0, 1), (0, 1)]
    assert [(row.mean, row.std, row.low, row.high) for row in rows[:2]] == [(0.1, 0, 0.1, 0.1), (0, 0, 0, 0)]
