import numpy as np

from emsuite.contingency import contingency
from emsuite.faults import Fault, worst_faults

LABELS = np.repeat([1, 2, 3], [50, 30, 20])
SEGMENTS = np.repeat([11, 12, 13, 14, 13, 0], [30, 15, 5, 30, 14, 6])


def test_splits_and_merges_are_listed_largest_first():
    # label 1 lies in 11, 12 and 13; label 2 in 14; label 3 in 13, and in none
    found = worst_faults(contingency(SEGMENTS, LABELS), 10)
    assert found == [
        Fault("split", 15, 0.3, 1, 12, 11),
        Fault("split", 5, 0.1, 1, 13, 11),
        Fault("merge", 5, 5 / 19, 1, 13, 3),
    ]
    assert [fault.pair for fault in found] == [(12, 1), (13, 1), (13, 1)]
    assert [fault.other_pair for fault in found] == [(11, 1), (11, 1), (13, 3)]


def test_no_more_than_asked_for_and_equals_by_their_ids():
    labels, segments = np.repeat([1, 2], 40), np.repeat([9, 5, 4, 3, 8, 7, 6, 2], 10)
    segments[:5] = segments[40:45] = 1
    found = worst_faults(contingency(segments, labels), 2)
    assert [(fault.kind, fault.voxels, fault.segment) for fault in found[:2]] == [("split", 10, 2), ("split", 10, 3)]
    assert [(fault.kind, fault.voxels, fault.segment, fault.other) for fault in found[2:]] == [("merge", 5, 1, 2)]


def test_a_perfect_segmentation_has_none():
    assert worst_faults(contingency(LABELS + 7, LABELS), 5) == []
