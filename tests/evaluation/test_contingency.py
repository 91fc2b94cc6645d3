import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.evaluation.contingency import contingency, merge_tables
from emsuite.io.relabel import relabel


def rows(table):
    return list(zip(table.segments.tolist(), table.labels.tolist(), table.counts.tolist(), strict=True))


def blobs(seed, shape=(20, 30, 40), ids=12, cell=5):
    """Blocky random ids, so that pairs come in runs, with a share of zeros."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, ids, [-(-n // cell) for n in shape])
    fine = coarse.repeat(cell, 0).repeat(cell, 1).repeat(cell, 2)[: shape[0], : shape[1], : shape[2]]
    return np.where(rng.random(shape) < 0.1, rng.integers(0, ids, shape), fine).astype(np.uint64)


def test_counts_pairs_and_leaves_label_0_out():
    segmentation = np.array([[0, 3, 3], [3, 3, 9]])
    labels = np.array([[7, 7, 7], [0, 5, 0]])
    assert rows(contingency(segmentation, labels)) == [(0, 7, 1), (3, 5, 1), (3, 7, 2)]


def test_counts_what_a_plain_count_does():
    segmentation, labels = blobs(0), blobs(1)
    pairs, counts = np.unique(np.stack([segmentation[labels > 0], labels[labels > 0]]), axis=1, return_counts=True)
    assert rows(contingency(segmentation, labels)) == list(zip(*pairs.tolist(), counts.tolist(), strict=True))


def test_ids_may_be_as_large_as_they_come():
    large = np.array([2**64 - 1, 2**64 - 2, 2**64 - 1], np.uint64)
    assert rows(contingency(large, large)) == [(2**64 - 2, 2**64 - 2, 1), (2**64 - 1, 2**64 - 1, 2)]


def test_arrays_larger_than_a_part_are_counted_whole(monkeypatch):
    segmentation, labels = blobs(0), blobs(1)
    whole = rows(contingency(segmentation, labels))
    monkeypatch.setattr("emsuite.evaluation.contingency._PART", 1000)
    assert rows(contingency(segmentation, labels)) == whole


@pytest.mark.parametrize("order", [1, -1])
def test_tables_of_blocks_merge_to_the_table_of_the_volume(order):
    segmentation, labels = blobs(0), blobs(1)
    blocks = [np.s_[z : z + 6, y : y + 11] for z in range(0, 20, 6) for y in range(0, 30, 11)][::order]
    merged = merge_tables(contingency(segmentation[block], labels[block]) for block in blocks)
    assert rows(merged) == rows(contingency(segmentation, labels))


def test_no_tables_merge_to_an_empty_one():
    assert rows(merge_tables([])) == rows(contingency(np.ones(3, int), np.zeros(3, int))) == []


def test_mapping_a_table_equals_relabelling_the_voxels():
    fragments, labels = blobs(0, ids=50), blobs(1)
    ids = np.random.default_rng(2).permutation(50).astype(np.uint64)
    segments = ids // np.uint64(7) + np.uint64(1)
    relabelled = relabel(fragments, ids, segments)
    assert (relabelled[fragments == 0] == 0).all()
    assert all((relabelled[fragments == i] == s).all() for i, s in zip(ids, segments, strict=True) if i)
    assert rows(contingency(fragments, labels).map(ids, segments)) == rows(contingency(relabelled, labels))


def test_a_lookup_table_without_one_of_the_fragments_is_refused():
    table = contingency(np.array([4, 8, 15]), np.array([1, 1, 1]))
    with pytest.raises(BadInput, match="no segment for 2 fragments, 8 the first"):
        table.map(np.array([4, 16], np.uint64), np.array([1, 1], np.uint64))


def test_groups_hold_sizes_and_main_partners():
    segmentation = np.array([1, 1, 1, 2, 3, 3, 3, 3, 3, 0, 0, 0])
    labels = np.array([10, 10, 10, 10, 11, 11, 11, 12, 12, 12, 12, 12])
    table = contingency(segmentation, labels)
    assert table.voxels == 12
    assert table.by_segment.ids.tolist() == [0, 1, 2, 3]
    assert table.by_segment.voxels.tolist() == [3, 3, 1, 5]
    assert table.by_label.voxels.tolist() == [4, 3, 5]
    assert table.main_label.tolist() == [12, 10, 10, 11]
    assert table.main_segment.tolist() == [1, 3, 3]  # segment 0 is larger in label 12, but no segment


@pytest.mark.parametrize(
    ("segmentation", "labels", "message"),
    [
        (np.ones((2, 3), int), np.ones((3, 2), int), r"\(2, 3\) and labels \(3, 2\) differ in shape"),
        (np.ones(3, np.float32), np.ones(3, int), "segmentation: holds float32, expected integer ids"),
        (np.ones(3, int), np.ones(3, bool), "labels: holds bool, expected integer ids"),
        (np.ones(3, int), np.array([1, -3, 1]), "labels: holds the id -3"),
    ],
)
def test_arrays_that_are_no_ids_are_refused(segmentation, labels, message):
    with pytest.raises(BadInput, match=message):
        contingency(segmentation, labels)
