"""Ids are found among sorted ones, and fragments replaced by segments."""

import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.io.relabel import find_sorted, lookup_rows, relabel, segments_of_rows


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


FRAGMENTS, SEGMENTS = ids(2, 7, 9, 2**63), ids(2, 2, 9, 7)


def test_relabelling_leaves_0_and_maps_the_rest() -> None:
    voxels = ids(0, 7, 7, 9, 0, 2**63).reshape(2, 3)
    assert relabel(voxels, FRAGMENTS, SEGMENTS).tolist() == [[0, 2, 2], [9, 0, 7]]
    assert relabel(voxels.T, FRAGMENTS, SEGMENTS).tolist() == [[0, 9], [2, 0], [2, 7]]
    assert relabel(voxels[0].astype(np.int32), FRAGMENTS, SEGMENTS).tolist() == [0, 2, 2]
    assert relabel(voxels, FRAGMENTS, SEGMENTS).dtype == relabel(ids(), FRAGMENTS, SEGMENTS).dtype == np.uint64


def test_rows_serve_every_column_of_segments() -> None:
    rows = lookup_rows(ids(9, 0, 2, 9), FRAGMENTS)
    assert rows.tolist() == [2, -1, 0, 2]
    assert segments_of_rows(rows, SEGMENTS).tolist() == [9, 0, 2, 9]
    assert segments_of_rows(rows, ids(1, 1, 1, 1)).tolist() == [1, 0, 1, 1]


@pytest.mark.parametrize("few", [0, 2**16])
@pytest.mark.parametrize("ascending", [True, False])
def test_many_ids_are_relabelled_as_few_are(few: int, ascending: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emsuite.io.relabel._FEW", few)
    rng = np.random.default_rng(0)
    fragments, segments = rng.permutation(50).astype(np.uint64), rng.integers(1, 9, 50).astype(np.uint64)
    if ascending:
        fragments = np.sort(fragments)
    table = dict(zip(fragments.tolist(), segments.tolist(), strict=True)) | {0: 0}
    voxels = rng.integers(0, 50, (5, 6, 7)).astype(np.uint64)
    before = voxels.copy()
    assert relabel(voxels, fragments, segments).tolist() == np.vectorize(table.get)(voxels).tolist()
    assert np.array_equal(voxels, before)


@pytest.mark.parametrize("few", [0, 2**16])
def test_fragments_that_the_table_lacks_are_refused(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emsuite.io.relabel._FEW", few)
    for fragments, segments in ((ids(2, 7, 9), ids(2, 2, 9)), (ids(9, 2, 7), ids(9, 2, 2)), (ids(), ids())):
        with pytest.raises(BadInput, match=r"no segment for 2 fragments, 8 the first"):
            relabel(ids(0, 8, 2**64 - 1, 8) if fragments.size else ids(8, 10), fragments, segments)
