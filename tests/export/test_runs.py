"""Runs of voxels: found in blocks and painted again, in voxels and in coarser ones."""

import numpy as np
import pytest

from emsuite.export.runs import MOST_BOX, MOST_VOXELS, coarsening, find_runs, paint

SHAPE = np.array([7, 9, 11])


def test_runs_are_rows_of_equal_voxels() -> None:
    labels = np.array([[[0, 0, 2, 2, 2, 0], [1, 2, 2, 2, 2, 2]]], np.uint32)
    one, two, three = find_runs(labels, 3, (10, 20, 30))
    assert one.tolist() == [[10, 21, 30, 31]]
    assert two.tolist() == [[10, 20, 32, 35], [10, 21, 31, 36]]
    assert three.tolist() == []


def test_background_everywhere_has_no_runs() -> None:
    assert find_runs(np.zeros((2, 3, 4), np.uint32), 0, (0, 0, 0)) == []


def expected(inside: np.ndarray, low: np.ndarray, high: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """The coarse voxels that hold a voxel of a segment, with background around them but at the region's faces."""
    whole = np.pad(inside, [(f, f + -n % f) for n, f in zip(inside.shape, factors, strict=True)])
    z, y, x = (n // f for n, f in zip(whole.shape, factors, strict=True))
    coarse = whole.reshape(z, factors[0], y, factors[1], x, factors[2]).any(axis=(1, 3, 5))
    first, end = low // factors + 1 - (low > 0), -(-high // factors) + 1 + (high < SHAPE)
    return coarse[tuple(map(slice, first, end))]


@pytest.mark.parametrize("factors", [(1, 1, 1), (1, 2, 2), (2, 4, 4)])
def test_segments_are_painted_as_they_were(factors: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, SHAPE).astype(np.uint32)
    labels[:, :, :2] = labels[:, -1] = 0
    labels[2, 3, 4] = 9
    parts = [(corner, labels[corner[0] :, corner[1] : corner[1] + 5]) for corner in ((0, 0, 0), (0, 5, 0))]
    for label in (1, 2, 3, 9):
        places = np.argwhere(labels == label)
        low, high = places.min(axis=0), places.max(axis=0) + 1
        runs = [find_runs(part, 9, corner)[label - 1] for corner, part in parts]
        made = paint(runs, low, high, SHAPE, np.array(factors))
        np.testing.assert_array_equal(made.inside, expected(labels == label, low, high, np.array(factors)))
        assert (made.first == low // factors - (low > 0)).all()


def test_large_segments_get_coarser_voxels_shortest_sides_first() -> None:
    assert coarsening(MOST_VOXELS, (100, 100, 100), (8, 8, 8)).tolist() == [1, 1, 1]
    assert coarsening(MOST_VOXELS + 1, (100, 100, 100), (8, 8, 8)).tolist() == [2, 2, 2]
    assert coarsening(4 * MOST_VOXELS, (100, 100, 100), (40, 4, 4)).tolist() == [1, 2, 2]
    assert coarsening(5 * MOST_VOXELS, (100, 100, 100), (40, 4, 4)).tolist() == [1, 4, 4]
    side = round(MOST_BOX ** (1 / 3)) * 7
    assert coarsening(1000, (side, side, side), (4, 4, 4.6)).tolist() == [8, 8, 8], "the box counts as well"
