"""Tile grids on paper, and mirrored reading."""

from pathlib import Path

import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.common.geometry import Roi
from emsuite.io.volume import create_volume
from emsuite.models.receptive_field import ReceptiveField, receptive_field
from emsuite.models.unet import UNetSettings
from emsuite.prediction.tiling import (
    BY_STRIDE,
    Original,
    Tiling,
    even_input_shape,
    read_reflected,
    read_with_zeros,
    tile_within,
)

# along each axis: inputs of 14, 18, 22, ... voxels; 4, 8, 12, ... come out
REACH = ReceptiveField((14, 14, 14), (4, 4, 4), (10, 10, 10), (5, 5, 5))
# the zebra finch networks
PUBLISHED = ReceptiveField((39, 214, 214), (3, 27, 27), (36, 212, 212), (18, 106, 106))
ORIGINAL, SCAN = Original(), Original(valid=True)


def along(
    tiling: Tiling, receptive_field: ReceptiveField, input_shape: tuple[int, ...], whole: Roi, roi: Roi, axis: int
) -> list:
    """Return where tiles begin along one axis, and the voxels kept of each, first and one past the last."""
    tiles = tiling.grid(receptive_field, input_shape, whole, roi)
    rows = {(t.begin[axis], t.keep_begin[axis], t.keep_begin[axis] + t.keep_shape[axis]) for t in tiles}
    return sorted(rows)


def test_a_grid_on_paper() -> None:
    """From voxel 6, 9 voxels, 8 come out: blocks of 4 from there on, each within 8 from a multiple of 4."""
    roi = Roi((6, 0, 0), (9, 4, 4))
    tiles = list(BY_STRIDE.grid(REACH, (18, 14, 14), roi, roi))
    assert [(t.begin[0], t.keep_begin[0], t.keep_shape[0]) for t in tiles] == [(4, 6, 4), (8, 10, 4), (12, 14, 1)]
    assert tiles[0].kept_of_output == (slice(None), slice(2, 6), slice(0, 4), slice(0, 4))


def test_from_a_multiple_of_the_stride_on_all_that_comes_out_is_kept() -> None:
    roi = Roi((4, 0, 0), (17, 4, 4))
    assert along(BY_STRIDE, REACH, (18, 14, 14), roi, roi, 0) == [(4, 4, 12), (12, 12, 20), (20, 20, 21)]


def test_tiles_of_one_stride_end_where_it_ends() -> None:
    roi = Roi((6, 0, 0), (9, 4, 4))
    assert along(BY_STRIDE, REACH, (14, 14, 14), roi, roi, 0) == [(4, 6, 8), (8, 8, 12), (12, 12, 15)]


@pytest.mark.parametrize("first", range(5))
def test_even_tiles_stay_as_they_are_when_evened_again(first: int) -> None:
    for n in range(1, 60):
        for largest in (14, 18, 22, 30, 50):
            tile = even_input_shape(REACH, (largest,) * 3, (first, 0, 0), (n, 4, 4))
            assert even_input_shape(REACH, tile, (first, 0, 0), (n, 4, 4)) == tile
            assert tile[0] <= largest
            roi = Roi((first, 0, 0), (n, 4, 4))
            starts = {low for low, _, _ in along(BY_STRIDE, REACH, tile, roi, roi, 0)}
            before = along(BY_STRIDE, REACH, (largest, 14, 14), roi, roi, 0)
            assert len(starts) <= len(before)


def test_tiles_are_as_large_as_memory_allows() -> None:
    """Of 40x40x20 voxels: all at once, then cut where the margins that are read twice cost least."""
    volume = (0, 0, 0), (40, 40, 20)
    assert tile_within(REACH, (50, 50, 50), 1e9, *volume) == (50, 50, 30)
    assert tile_within(REACH, (34, 50, 50), 1e9, *volume) == (30, 50, 30)
    assert tile_within(REACH, (50, 50, 50), 50 * 30 * 30, *volume) in {(30, 50, 30), (50, 30, 30)}
    assert np.prod(tile_within(REACH, (50, 50, 50), 20**3, *volume)) <= 20**3
    assert tile_within(REACH, (50, 50, 50), 1, *volume) == (14, 14, 14)


def test_original_blocks_on_paper() -> None:
    """Blocks of 60x272x272 from the volume's first voxel on, the last one overhanging; 272 is no multiple of 27."""
    whole = Roi((0, 0, 0), (100, 600, 272))
    rows = [along(ORIGINAL, PUBLISHED, (96, 484, 484), whole, whole, axis) for axis in range(3)]
    assert rows[0] == [(0, 0, 60), (60, 60, 100)]
    assert rows[1] == [(0, 0, 272), (272, 272, 544), (544, 544, 600)]
    assert rows[2] == [(0, 0, 272)]
    assert len(list(ORIGINAL.grid(PUBLISHED, (96, 484, 484), whole, whole))) == 6


def test_original_tiles_of_the_valid_part_on_paper() -> None:
    """The last one ends with the last voxel that has real context, and keeps what it shares with the one before."""
    whole = SCAN.whole(PUBLISHED, Roi((0, 0, 0), (136, 812, 484)))
    assert whole == Roi((18, 106, 106), (100, 600, 272))
    rows = [along(SCAN, PUBLISHED, (96, 484, 484), whole, whole, axis) for axis in range(3)]
    assert rows[0] == [(18, 18, 58), (58, 58, 118)]
    assert rows[1] == [(106, 106, 378), (378, 378, 434), (434, 434, 706)]
    assert rows[2] == [(106, 106, 378)]
    twice = Roi((18, 106, 106), (120, 272, 272))
    assert along(SCAN, PUBLISHED, (96, 484, 484), twice, twice, 0) == [(18, 18, 78), (78, 78, 138)]


CREMI = receptive_field(UNetSettings(num_fmaps=6, fmap_inc_factor=4, downsample_factors=[[1, 3, 3]] * 3))
TUTORIAL = Original(valid=True, whole_context=True)


def test_the_regions_of_the_cremi_tutorial() -> None:
    """Of 200x3072x3072 voxels: all with real context, and what gunpowder's example leaves of them."""
    assert (CREMI.offset, CREMI.context) == ((14, 106, 106), (28, 212, 212))
    sample = Roi((0, 0, 0), (200, 3072, 3072))
    assert BY_STRIDE.real_context(CREMI, sample) == Roi((14, 106, 106), (172, 2860, 2860))
    assert SCAN.whole(CREMI, sample) == Roi((14, 106, 106), (172, 2860, 2860))
    assert TUTORIAL.whole(CREMI, sample) == Roi((28, 212, 212), (144, 2648, 2648))


def test_the_tiles_of_the_cremi_tutorial() -> None:
    """Steps of the output, 92x110x110; the last one of a row ends where the region does. Context lies inside raw."""
    sample = Roi((0, 0, 0), (200, 3072, 3072))
    whole = TUTORIAL.whole(CREMI, sample)
    assert TUTORIAL.step(CREMI, (120, 322, 322)) == (92, 110, 110)
    grid = TUTORIAL.grid(CREMI, (120, 322, 322), whole, whole)
    assert grid.shape == (2, 25, 25)
    assert [begin for begin, _, _ in grid.axes[0]] == [28, 28 + 144 - 92]
    begins = [begin for begin, _, _ in grid.axes[1]]
    assert begins == [*range(212, 2750, 110), 212 + 2648 - 110]
    first, last = grid[0], grid[len(grid) - 1]
    assert min(b - o for b, o in zip(first.begin, CREMI.offset, strict=True)) >= 0
    ends = [b - o + n for b, o, n in zip(last.begin, CREMI.offset, (120, 322, 322), strict=True)]
    assert all(end <= n for end, n in zip(ends, sample.shape, strict=True))


def test_a_region_takes_the_tiles_of_the_whole_that_it_needs() -> None:
    whole = Roi((0, 0, 0), (100, 600, 272))
    roi = Roi((70, 280, 0), (10, 300, 272))
    assert along(ORIGINAL, PUBLISHED, (96, 484, 484), whole, roi, 0) == [(60, 70, 80)]
    assert along(ORIGINAL, PUBLISHED, (96, 484, 484), whole, roi, 1) == [(272, 280, 544), (544, 544, 580)]
    assert along(SCAN, PUBLISHED, (96, 484, 484), whole, roi, 1) == [(272, 280, 328), (328, 328, 580)]


@pytest.mark.parametrize("tiling", [BY_STRIDE, ORIGINAL, SCAN])
@pytest.mark.parametrize("begin", [(0, 0, 0), (3, 5, 9)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (13, 9, 30)])
def test_every_voxel_is_kept_once(tiling: Tiling, begin: tuple[int, ...], shape: tuple[int, ...]) -> None:
    roi, whole = Roi(begin, shape), Roi((0, 0, 0), (16, 17, 40))
    count = np.zeros(roi.end, int)
    for tile in tiling.grid(REACH, (18, 22, 14), whole, roi):
        count[tuple(slice(b, b + n) for b, n in zip(tile.keep_begin, tile.keep_shape, strict=True))] += 1
        assert all(b % 4 == 0 for b in tile.begin) or tiling == SCAN
        assert (np.array(tile.begin) <= tile.keep_begin).all()
        assert (np.add(tile.keep_begin, tile.keep_shape) <= np.add(tile.begin, (8, 12, 4))).all()
    assert (count[roi.to_slices()] == 1).all()
    assert count.sum() == np.prod(shape)


def test_what_covers_a_voxel_twice_gives_it_to_the_later_tile_in_any_order() -> None:
    """gunpowder's Scan counts up z first and lets a later tile overwrite; written out, z last gives the same."""
    whole = Roi((5, 5, 5), (11, 17, 7))
    owners = []
    for order in ((0, 1, 2), (2, 1, 0)):
        owner = np.zeros((3, *whole.end), int)
        begins = {t.begin for t in SCAN.grid(REACH, (18, 22, 14), whole, whole)}
        for begin in sorted(begins, key=lambda corner: [corner[axis] for axis in order]):
            covered = tuple(slice(b, b + n) for b, n in zip(begin, (8, 12, 4), strict=True))
            owner[:, *covered] = np.array(begin)[:, None, None, None]
        owners.append(owner)
    np.testing.assert_array_equal(owners[0], owners[1])
    for tile in SCAN.grid(REACH, (18, 22, 14), whole, whole):
        assert tuple(owners[0][:, *tile.keep_begin]) == tile.begin
        assert tuple(owners[0][:, *(b + n - 1 for b, n in zip(tile.keep_begin, tile.keep_shape, strict=True))]) == (
            tile.begin
        )


def test_original_tiles_are_exactly_what_is_configured() -> None:
    roi = Roi((0, 0, 0), (7, 7, 7))
    assert ORIGINAL.input_shape(PUBLISHED, (96, 484, 484), roi) == (96, 484, 484)
    assert ORIGINAL.step(PUBLISHED, (96, 484, 484)) == (60, 272, 272)
    assert BY_STRIDE.step(PUBLISHED, (96, 484, 484)) == (60, 270, 270)
    with pytest.raises(BadInput, match=r"\(96, 480, 484\) does not fit .* next is \(96, 457, 484\)"):
        ORIGINAL.input_shape(PUBLISHED, (96, 480, 484), roi)


def test_tiles_are_as_even_as_the_stride_allows() -> None:
    # 20 voxels of output in tiles of at most 16: two of 12 rather than one of 16 and one of 4
    assert even_input_shape(REACH, (26, 26, 26), (0, 0, 0), (20, 16, 3)) == (22, 26, 14)


def test_reading_outside_mirrors_without_repeating_the_edge(tmp_path: Path) -> None:
    volume = create_volume(tmp_path / "v.zarr/raw", (2, 3, 5), np.uint8, (1, 1, 1), (0, 0, 0))
    voxels = np.arange(30, dtype=np.uint8).reshape(2, 3, 5)
    volume.array[...] = voxels
    expected = np.pad(voxels, ((3, 4), (1, 2), (7, 9)), mode="reflect")
    np.testing.assert_array_equal(read_reflected(volume, (-3, -1, -7), expected.shape), expected)


def test_a_single_section_mirrors_to_itself(tmp_path: Path) -> None:
    volume = create_volume(tmp_path / "v.zarr/raw", (1, 2, 2), np.uint8, (1, 1, 1), (0, 0, 0))
    volume.array[...] = 7
    assert (read_reflected(volume, (-2, 0, 0), (5, 2, 2)) == 7).all()


def test_reading_with_zeros_outside(tmp_path: Path) -> None:
    volume = create_volume(tmp_path / "v.zarr/raw", (2, 3, 5), np.uint8, (1, 1, 1), (40, 40, 40))
    volume.array[...] = voxels = np.arange(1, 31, dtype=np.uint8).reshape(2, 3, 5)
    expected = np.pad(voxels, ((3, 4), (1, 2), (7, 9)))
    np.testing.assert_array_equal(read_with_zeros(volume, (-3, -1, -7), expected.shape), expected)
    np.testing.assert_array_equal(read_with_zeros(volume, (1, 0, 3), (2, 2, 1)), expected[4:6, 1:3, 10:11])
    channels = create_volume(tmp_path / "v.zarr/lsds", (2, 2, 3, 5), np.uint8, (1, 1, 1), (40, 40, 40))
    channels.array[...] = both = np.stack([voxels, voxels + 100])
    read = read_with_zeros(channels, (0, -1, 0), (2, 4, 5))
    np.testing.assert_array_equal(read, np.pad(both, ((0, 0), (0, 0), (1, 0), (0, 0))))


def test_tiles_smaller_than_a_stride_are_made_to_yield_one() -> None:
    receptive_field = ReceptiveField(
        smallest=(39, 214, 214), stride=(3, 27, 27), context=(36, 212, 212), offset=(18, 106, 106)
    )
    assert even_input_shape(receptive_field, (42, 214, 241), (0, 0, 0), (6, 27, 54)) == (42, 241, 241)
