"""Ids among sorted ones."""

import numpy as np

from emsuite.common.relabel import find_sorted


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


def test_ids_that_are_there_and_others() -> None:
    places, found = find_sorted(ids(7, 3, 8, 0, 9, 10), ids(3, 7, 9))
    assert found.tolist() == [True, True, False, False, True, False]
    assert places[found].tolist() == [1, 0, 2]
    assert places[~found].tolist() == [2, 0, 3]


def test_any_shape() -> None:
    places, found = find_sorted(ids(2, 1, 1, 2).reshape(2, 2), ids(1, 2))
    assert places.tolist() == [[1, 0], [0, 1]]
    assert found.all()


def test_large_ids_are_told_apart() -> None:
    places, found = find_sorted(ids(2**63, 2**63 + 1, 2**64 - 1), ids(2**63 + 1, 2**64 - 1))
    assert found.tolist() == [False, True, True]
    assert places.tolist() == [0, 0, 1]


def test_nothing_known_and_nothing_asked() -> None:
    assert find_sorted(ids(1, 2), ids())[1].tolist() == [False, False]
    assert [part.size for part in find_sorted(ids(), ids(1))] == [0, 0]
