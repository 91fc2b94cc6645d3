import numpy as np
import pytest

from emsuite.contingency import contingency
from emsuite.mistakes import Mistake, mistake_shares, mistakes

SEGMENTS = np.array([1, 1, 1, 2, 3, 3, 3, 3, 3, 0], np.uint64)
LABELS = np.array([1, 1, 1, 1, 2, 2, 2, 3, 3, 3], np.uint64)


def test_each_kind_where_it_is():
    table = contingency(SEGMENTS, LABELS)
    expected = [0, 0, 0, Mistake.SPLIT, 0, 0, 0, Mistake.MERGE, Mistake.MERGE, Mistake.UNSEGMENTED]
    assert mistakes(table, SEGMENTS, LABELS).tolist() == expected


def test_a_border_that_lies_elsewhere_is_both():
    labels = np.repeat(np.array([1, 2], np.uint64), 10)
    segments = np.repeat(np.array([5, 6], np.uint64), [8, 12])
    kind = mistakes(contingency(segments, labels), segments, labels)
    assert kind.tolist() == [0] * 8 + [Mistake.BOTH] * 2 + [0] * 10


def test_voxels_without_a_label_are_never_wrong():
    table = contingency(SEGMENTS, LABELS)
    assert not mistakes(table, SEGMENTS, np.zeros_like(LABELS)).any()


def test_shares_add_up():
    shares = mistake_shares(contingency(SEGMENTS, LABELS))
    assert shares[Mistake.SPLIT] == 0.1
    assert shares[Mistake.MERGE] == 0.2
    assert sum(shares.values()) == pytest.approx(1)
