import math

import numpy as np
import pytest
import skimage.metrics
import waterz

from emsuite.common.errors import BadInput
from emsuite.evaluation.contingency import contingency
from emsuite.evaluation.min_cut import Edits
from emsuite.evaluation.run_length import RunLength
from emsuite.evaluation.scores import (
    METRICS,
    Measurements,
    PairScores,
    adapted_rand,
    adapted_rand_of,
    compute_metrics,
    pair_scores_of,
    rand_index,
    variation_of_information,
    variation_of_information_of,
)

DTYPES = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]


def blobs(seed, shape=(24, 24, 24), ids=20):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(1, ids, [n // 4 for n in shape])
    return np.where(rng.random(shape) < 0.2, rng.integers(1, ids, shape), np.kron(coarse, np.ones((4, 4, 4), int)))


def two_boxes():
    labels = np.ones((4, 6, 8), np.uint64)
    labels[:, 3:] = 2
    return labels


def test_equal_up_to_names_is_perfect():
    labels = two_boxes()
    assert variation_of_information(labels, labels).sum == 0
    renamed = np.where(labels == 1, 40, 7)
    voi, rand = variation_of_information(renamed, labels), adapted_rand(renamed, labels)
    assert (voi.split, voi.merge, rand.error, rand.precision, rand.recall) == (0, 0, 0, 1, 1)
    assert rand_index(renamed, labels) == 1


def test_a_label_split_evenly_costs_one_bit():
    labels = np.ones((4, 4, 4), int)
    segmentation = labels.copy()
    segmentation[:2] = 2
    voi = variation_of_information(segmentation, labels)
    assert (voi.split, voi.merge) == (1, 0)
    assert adapted_rand(segmentation, labels).precision == 1
    assert adapted_rand(segmentation, labels).recall == pytest.approx(2 * 32 * 31 / (64 * 63))


def test_splitting_one_of_two_equal_labels_costs_half_a_bit():
    labels = two_boxes()
    segmentation = labels.copy()
    segmentation[:2, :3] = 3
    assert variation_of_information(segmentation, labels).split == 0.5


def test_merging_two_equal_labels_costs_one_bit():
    voi = variation_of_information(np.ones((4, 6, 8), int), two_boxes())
    assert (voi.split, voi.merge, voi.sum) == (0, 1, 1)


def test_merging_a_quarter_with_three_quarters():
    labels = np.ones(64, int)
    labels[:16] = 2
    expected = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert variation_of_information(np.ones(64, int), labels).merge == pytest.approx(expected)


def test_label_0_is_left_out():
    labels, segmentation = two_boxes(), two_boxes()
    labels[0] = 0
    segmentation[0] = np.arange(48).reshape(6, 8)
    assert variation_of_information(segmentation, labels).sum == 0
    assert adapted_rand(segmentation, labels).error == 0


def test_segment_0_is_a_segment_for_the_voi_and_none_for_the_rand_error():
    labels = np.repeat([1, 2], 32)
    segmentation = labels.copy()
    segmentation[16:48] = 0  # half of each label
    voi, rand = variation_of_information(segmentation, labels), adapted_rand(segmentation, labels)
    assert (voi.split, voi.merge) == (1, 0.5)
    assert rand.precision == 1  # as if each voxel of segment 0 were alone
    assert rand.recall == pytest.approx(2 * 16 * 15 / (2 * 32 * 31))


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_integer_type(dtype):
    labels, segmentation = blobs(0), blobs(1)
    expected = variation_of_information(segmentation, labels)
    assert variation_of_information(segmentation.astype(dtype), labels.astype(np.int64)) == expected
    assert variation_of_information(segmentation.astype(np.uint64), labels.astype(dtype)) == expected


@pytest.mark.parametrize("seed", range(3))
def test_voi_as_scikit_image(seed):
    labels, segmentation = blobs(seed), blobs(seed + 10)
    labels[labels < 4] = 0
    segmentation[segmentation < 4] = 0
    split, merge = skimage.metrics.variation_of_information(labels, segmentation, ignore_labels=[0])
    voi = variation_of_information(segmentation, labels)
    assert (voi.split, voi.merge) == pytest.approx((split, merge), rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_voi_as_waterz(seed):
    labels, segmentation = blobs(seed).astype(np.uint64), blobs(seed + 10).astype(np.uint64)
    labels[labels < 4] = 0
    segmentation[segmentation < 4] = 0
    found = waterz.evaluate(segmentation, labels)
    voi = variation_of_information(segmentation, labels)
    assert (voi.split, voi.merge) == pytest.approx((found["voi_split"], found["voi_merge"]), rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_adapted_rand_as_scikit_image(seed):
    labels, segmentation = blobs(seed), blobs(seed + 10)
    labels[labels < 4] = 0
    error, recall, precision = skimage.metrics.adapted_rand_error(labels, segmentation)
    rand = adapted_rand(segmentation, labels)
    assert (rand.error, rand.precision, rand.recall) == pytest.approx((error, precision, recall), rel=1e-9)


def test_adapted_rand_names_its_parts_as_cremi():
    labels = two_boxes()
    merged = adapted_rand(np.ones_like(labels), labels)
    assert (merged.recall, merged.precision < 1) == (1, True)


def test_rand_index_by_counting_pairs():
    rng = np.random.default_rng(0)
    segmentation, labels = rng.integers(0, 4, 40), rng.integers(1, 5, 40)
    pairs = [(i, j) for i in range(40) for j in range(i)]
    agree = sum((segmentation[i] == segmentation[j]) == (labels[i] == labels[j]) for i, j in pairs)
    assert rand_index(segmentation, labels) == pytest.approx(agree / len(pairs))


def test_nothing_but_single_voxels_has_no_wrong_pair():
    alone = np.arange(1, 9)
    assert adapted_rand(alone, alone).error == 0


def test_scores_of_a_merged_agglomeration_are_those_of_the_voxels():
    fragments, labels = blobs(0).astype(np.uint64), blobs(1)
    ids = np.unique(fragments)
    segments = ids % np.uint64(5) + np.uint64(1)
    table = contingency(fragments, labels).map(ids, segments)
    voxels = fragments % np.uint64(5) + np.uint64(1)
    assert variation_of_information_of(table) == variation_of_information(voxels, labels)
    assert adapted_rand_of(table) == adapted_rand(voxels, labels)


def test_counts_whose_square_leaves_64_bits():
    table = contingency(np.array([1, 2]), np.array([1, 1]))
    table.counts[:] = 2**40
    assert adapted_rand_of(table).recall == pytest.approx(0.5)


def test_voxels_in_no_segment_are_one_segment_for_pair_scores_and_each_its_own_for_adapted_rand():
    labels = np.repeat([1, 2], 4)
    unfragmented = np.array([5, 5, 0, 0, 6, 6, 0, 0])
    one = np.where(unfragmented == 0, 99, unfragmented)  # segment 0 as a segment like any other
    each = np.where(unfragmented == 0, np.arange(100, 108), unfragmented)  # each voxel of it a segment of its own
    scores = pair_scores_of(contingency(unfragmented, labels))
    assert scores == pair_scores_of(contingency(one, labels))
    # together: 4 pairs of a segment and a label with 2 voxels each; segments of 2, 2 and 4 voxels, labels of 4
    assert (scores.rand_split, scores.rand_merge) == (4 * 2**2 / (2 * 4**2), 4 * 2**2 / (2**2 + 2**2 + 4**2))
    rand = adapted_rand(unfragmented, labels)
    assert rand == adapted_rand(each, labels)
    assert (rand.precision, rand.recall) == (1, 4 / 24)
    assert rand.error != adapted_rand(one, labels).error
    error, _, _ = skimage.metrics.adapted_rand_error(labels, each)
    assert rand.error == pytest.approx(error)


def test_pair_scores_of_the_published_test_cases():
    truth, test = np.array([1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4]), np.array([3, 3, 3, 3, 4, 5, 6, 6, 5, 5, 5])
    scores = pair_scores_of(contingency(test, truth))
    assert (scores.rand_split, scores.rand_merge) == pytest.approx((0.6363636363636364, 0.5675675675675675))
    assert (scores.nvi_split, scores.nvi_merge) == pytest.approx((0.2407837822280942, 0.2851668894867314))
    assert scores.nid == pytest.approx(0.3756069520269456)
    perfect = pair_scores_of(contingency(np.array([4, 5, 6]), np.array([1, 2, 3])))
    assert perfect == PairScores(1, 1, 0, 0, pytest.approx(0))
    merged = pair_scores_of(contingency(np.array([2, 2, 2, 2]), np.array([1, 1, 2, 2])))
    assert merged == PairScores(1, 0.5, 0, 1, 1)
    assert pair_scores_of(contingency(np.ones(3, int), np.ones(3, int))) == PairScores(1, 1, 0, 0, 0)


@pytest.mark.parametrize("score", [variation_of_information, adapted_rand, rand_index])
def test_nothing_labelled_is_refused(score):
    with pytest.raises(BadInput, match="nothing but 0"):
        score(np.ones((3, 3, 3), int), np.zeros((3, 3, 3), int))
    with pytest.raises(BadInput, match="differ in shape"):
        score(np.ones((3, 3, 3), int), np.ones((3, 3), int))


def test_columns_of_scores_csv_keep_their_names_and_order():
    assert ",".join(["threshold", *METRICS]) == (
        "threshold,voi_split,voi_merge,voi_sum,adapted_rand_error,precision,recall,rand_index,erl,nerl,splits,merges,"
        "segments,splits_needed,merges_needed,unsplittable,joins_needed,rand_split,rand_merge,nvi_split,nvi_merge,nid,"
        "node_voi_split,node_voi_merge,synapse_voi_split,synapse_voi_merge"
    )


def test_each_metric_is_computed_from_what_it_takes():
    labels, segmentation = blobs(0), blobs(1)
    table = contingency(segmentation, labels)
    voi, rand = variation_of_information(segmentation, labels), adapted_rand(segmentation, labels)
    regions = {
        "voi_split": voi.split, "voi_merge": voi.merge, "voi_sum": voi.sum, "adapted_rand_error": rand.error,
        "precision": rand.precision, "recall": rand.recall, "rand_index": rand_index(segmentation, labels),
        "segments": 19,
    }  # fmt: skip
    run_length = {"erl": 40.0, "nerl": 0.25, "splits": 3, "merges": 2}
    edits = {"splits_needed": 5, "merges_needed": 6, "joins_needed": 7, "unsplittable": 1}
    alone = compute_metrics(Measurements(table))
    assert alone | regions | dict.fromkeys([*run_length, *edits]) == alone
    measured = compute_metrics(Measurements(table, RunLength(**run_length), Edits(5, 6, 7, 1)))
    assert measured | regions | run_length | edits == measured
    assert list(measured) == list(alone) == list(METRICS)
    assert compute_metrics(Measurements(table), ["segments"]) == {"segments": 19}


def test_metrics_of_nothing_labelled_are_refused():
    with pytest.raises(BadInput, match="nothing but 0"):
        compute_metrics(Measurements(contingency(np.ones(3, int), np.zeros(3, int))))
