import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.evaluation.run_length import expected_run_length
from emsuite.io.skeletons import Skeletons


def lines(*counts, step=10.0):
    """Straight skeletons along x, one per count of nodes."""
    skeleton = np.repeat(np.arange(1, len(counts) + 1), counts)
    along = np.concatenate([np.arange(count) for count in counts])
    positions = np.stack([0 * along, 100 * skeleton, step * along], axis=1)
    first = np.cumsum([0, *counts[:-1]])
    edges = np.concatenate(
        [start + np.stack([np.arange(n - 1), np.arange(1, n)], 1) for start, n in zip(first, counts, strict=True)]
    )
    return Skeletons(np.arange(along.size), skeleton, positions, np.ones(along.size), edges)


def score(skeletons, *segments):
    run = expected_run_length(skeletons, np.array(segments, np.uint64))
    return run.erl, run.nerl, run.splits, run.merges


def test_a_perfect_segmentation_runs_all_the_way():
    assert score(lines(11), *[5] * 11) == (100, 1, 0, 0)


def test_a_line_split_in_two():
    # runs of 40 and 50; the edge of 10 between them is lost: (40² + 50²) / 100
    assert score(lines(11), *[1] * 5, *[2] * 6) == (41, 0.41, 1, 0)


def test_longer_skeletons_count_for_more():
    # perfect: (100² + 20²) / 120
    erl, nerl, _, _ = score(lines(11, 3), *[1] * 11, *[2] * 3)
    assert erl == pytest.approx((100**2 + 20**2) / 120)
    assert nerl == 1


def test_a_segment_that_merges_two_skeletons_scores_nothing():
    assert score(lines(11, 11), *[1] * 22) == (0, 0, 0, 1)
    # the rest of the first skeleton still scores: a run of 40 of 200
    assert score(lines(11, 11), *[2] * 5, *[1] * 17) == (8, 0.08, 1, 1)


def test_segment_0_scores_nothing_and_merges_nothing():
    assert score(lines(11, 11), *[0] * 11, *[4] * 11) == (50, 0.5, 0, 0)
    assert score(lines(11), *[0] * 11) == (0, 0, 0, 0)


def test_a_segment_that_comes_back_runs_once():
    # 3 + 3 nodes of segment 1 around one of segment 2: a run of 20 + 20
    erl, _, splits, _ = score(lines(7), 1, 1, 1, 2, 1, 1, 1)
    assert (erl, splits) == (pytest.approx(40**2 / 60), 1)


def test_pieces_cut_apart_run_on_their_own():
    whole = lines(11)
    pieces = whole.subset(np.arange(11) != 5)
    # one segment over both pieces is no merge, and neither are two segments a split: both are perfect
    assert score(pieces, *[1] * 10) == score(pieces, *[1] * 5, *[2] * 5) == (40, 1, 0, 0)


def test_ids_that_floats_cannot_tell_apart():
    assert score(lines(3), 2**63 + 1, 2**63 + 1, 2**63 + 2)[0] == 5


def test_counts_errors_over_all_skeletons():
    _, _, splits, merges = score(lines(4, 4, 4), 1, 2, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4)
    assert (splits, merges) == (3, 2)  # 1|2|3 and 3|4; segment 3 joins three skeletons


def test_without_edges_there_is_nothing_to_run_along():
    with pytest.raises(BadInput, match="no edges in the region"):
        score(lines(1, 1), 1, 2)
