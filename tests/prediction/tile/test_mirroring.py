"""Mirrored voxels: as by index, and without a copy where nothing is mirrored."""

import numpy as np
import pytest

from emsuite.prediction.tile.mirroring import mirrored, reflect


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("begin", [-30, -9, -4, -3, -1, 0, 1, 2, 7, 20])
@pytest.mark.parametrize("n", [1, 2, 3, 8, 40])
def test_blocks_equal_indices(size: int, begin: int, n: int) -> None:
    rng = np.random.default_rng(0)
    along = reflect(np.arange(begin, begin + n), size)
    expected = np.pad(np.arange(size), 200, mode="reflect" if size > 1 else "edge")[200 + begin :][:n]
    np.testing.assert_array_equal(along, expected)
    along -= along.min()
    length = int(along.max()) + 1
    for indices in ([along, np.arange(4), np.arange(3)], [np.arange(2), along, along]):
        shape = [length if index is along else len(index) for index in indices]
        voxels = rng.integers(0, 256, shape, np.uint8)
        np.testing.assert_array_equal(mirrored(voxels, indices), voxels[np.ix_(*indices)])


def test_what_is_not_mirrored_is_not_copied() -> None:
    voxels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert mirrored(voxels, [np.arange(2), np.arange(3), np.arange(4)]) is voxels
    assert mirrored(voxels, [np.arange(2), np.arange(3), np.arange(4)[::-1]]).tolist() == voxels[..., ::-1].tolist()


def test_a_part_of_the_voxels_is_no_whole() -> None:
    voxels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.testing.assert_array_equal(mirrored(voxels, [np.arange(2), np.arange(2), np.arange(4)]), voxels[:, :2])
