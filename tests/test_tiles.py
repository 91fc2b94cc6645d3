"""Tile grids on paper, and mirrored reading."""

from pathlib import Path

import numpy as np
import pytest

from emsuite.geometry import Reach
from emsuite.tiles import even_input_shape, grid, read_reflected
from emsuite.volume import create_volume

# along each axis: inputs of 14, 18, 22, ... voxels; 4, 8, 12, ... come out
REACH = Reach((14, 14, 14), (4, 4, 4), (10, 10, 10), (5, 5, 5))


def test_a_grid_on_paper() -> None:
    """From voxel 6, 9 voxels, steps of 8: the tiles begin at 4 and 12 and keep 6..11 and 12..14."""
    tiles = list(grid(REACH, (18, 14, 14), (6, 0, 0), (9, 4, 4)))
    assert [(t.begin[0], t.keep_begin[0], t.keep_shape[0]) for t in tiles] == [(4, 6, 6), (12, 12, 3)]
    assert tiles[0].kept_of_output == (slice(None), slice(2, 8), slice(0, 4), slice(0, 4))


@pytest.mark.parametrize("begin", [(0, 0, 0), (3, 5, 9)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (13, 9, 30)])
def test_every_voxel_is_kept_once(begin: tuple[int, ...], shape: tuple[int, ...]) -> None:
    count = np.zeros([b + n for b, n in zip(begin, shape, strict=True)], int)
    for tile in grid(REACH, (18, 22, 14), begin, shape):
        count[tuple(slice(b, b + n) for b, n in zip(tile.keep_begin, tile.keep_shape, strict=True))] += 1
        assert all(b % 4 == 0 for b in tile.begin)
    assert (count[tuple(slice(b, None) for b in begin)] == 1).all()
    assert count.sum() == np.prod(shape)


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
