import math

import numpy as np
import pytest
import skimage.metrics
import waterz
from scipy.optimize import linear_sum_assignment

from emsuite.common.errors import BadInput
from emsuite.evaluation.contingency import contingency
from emsuite.evaluation.scores import (
    PairScores,
    adapted_rand,
    adapted_rand_of,
    average_precision_of,
    cremi_score_of,
    pair_scores_of,
    rand_index,
    section_scores_of,
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


def cremi_python(segmentation, labels):
    """VOI split and merge and adapted Rand error as cremi/cremi_python computes them, without its sparse matrices.

    Of evaluation/voi.py and rand.py at 2017-04-04, read on GitHub; labels hold no background.
    """
    counts = np.zeros((labels.max() + 1, segmentation.max() + 1))
    np.add.at(counts, (labels.ravel(), segmentation.ravel()), 1)
    shares = counts / counts.sum()
    of_labels, of_segments = shares.sum(1, keepdims=True), shares.sum(0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        split = -np.nansum(shares * np.log2(shares / of_labels))
        merge = -np.nansum(shares * np.log2(shares / of_segments))
    a, b, c = counts[1:], counts[1:, 1:], counts[1:, 0]
    outside = c.sum() / labels.size
    together = (b**2).sum() + outside
    precision = together / ((b.sum(0) ** 2).sum() + outside)
    recall = together / (a.sum(1) ** 2).sum()
    return split, merge, 1 - 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("unsegmented", [0, 5])
@pytest.mark.parametrize("seed", range(3))
def test_cremi_scores_as_cremi_python(seed, unsegmented):
    labels, segmentation = blobs(seed), blobs(seed + 10)
    segmentation[segmentation < unsegmented] = 0
    table = contingency(segmentation, labels)
    split, merge, error = cremi_python(segmentation, labels)
    voi, cremi = variation_of_information_of(table), cremi_score_of(table)
    assert (voi.split, voi.merge) == pytest.approx((split, merge), rel=1e-12)
    assert cremi.rand_error == pytest.approx(error, rel=1e-12)
    assert cremi.score == pytest.approx(math.sqrt((split + merge) * error), rel=1e-12)


def test_the_cremi_score_of_two_equal_labels_in_one_segment():
    labels = np.repeat([1, 2], 32)
    cremi = cremi_score_of(contingency(np.ones(64, int), labels))
    # 2 of 4 pairs of halves lie within a label: precision 1/2, recall 1, F 2/3; VOI merge is one bit
    assert cremi.rand_error == pytest.approx(1 / 3)
    assert cremi.score == pytest.approx(math.sqrt(1 / 3))
    assert cremi_score_of(contingency(labels, labels)).score == 0
    with pytest.raises(BadInput, match="nothing but 0"):
        cremi_score_of(contingency(labels, 0 * labels))


def test_sections_are_scored_each_alone_and_count_by_their_voxels():
    labels = np.ones((2, 4, 8), int)
    labels[1, :, 4:] = 0  # half as many voxels
    segmentation = labels.copy()
    segmentation[0, :2] = 2  # one bit of split in the first section, none in the second
    scores = section_scores_of([contingency(*both) for both in zip(segmentation, labels, strict=True)])
    assert scores.voi.split == pytest.approx(2 / 3)
    assert scores.voi.merge == 0
    assert scores.rand_error == pytest.approx(2 / 3 * adapted_rand(segmentation[0], labels[0]).error)
    across = np.ones((2, 4, 8), int)  # one segment through both sections merges nothing within one
    three_d = np.stack([np.ones((4, 8), int), np.full((4, 8), 2)])
    each = section_scores_of([contingency(*both) for both in zip(across, three_d, strict=True)])
    assert (each.voi.sum, each.rand_error) == (0, 0)
    assert variation_of_information(across, three_d).merge == 1


def test_sections_with_ids_of_their_own_are_the_volume():
    rng = np.random.default_rng(0)
    shift = 100 * np.arange(6)[:, None, None]
    labels, segmentation = rng.integers(0, 5, (6, 9, 9)), rng.integers(0, 5, (6, 9, 9))
    each = section_scores_of([contingency(*both) for both in zip(segmentation, labels, strict=True)])
    whole = variation_of_information(segmentation + shift, np.where(labels, labels + shift, 0))
    assert (each.voi.split, each.voi.merge) == pytest.approx((whole.split, whole.merge))


def test_sections_without_labels_do_not_count():
    empty, full = contingency(np.ones(8, int), np.zeros(8, int)), contingency(np.ones(8, int), np.ones(8, int))
    assert section_scores_of([empty, full]).voi.sum == 0
    with pytest.raises(BadInput, match="nothing but 0"):
        section_scores_of([empty, empty])


def ap(segmentation, labels):
    return average_precision_of(contingency(np.array(segmentation), np.array(labels)))


def test_average_precision_of_what_can_be_counted_by_hand():
    labels = [1] * 10 + [2] * 10 + [3] * 10
    assert ap(labels, labels).mean == 1
    # of 1 eight voxels are found, 2 is found, 3 is not: overlaps 0.8 and 1
    half = ap([5] * 8 + [0] * 2 + [6] * 10 + [0] * 10, labels)
    assert (half.at_50, half.at_75) == (2 / 3, 2 / 3)
    assert half.mean == pytest.approx((7 * 2 / 3 + 3 * 1 / 4) / 10)  # one of two segments and of three labels
    assert ap([7] * 30, labels).mean == 0  # one segment for all: an overlap of a third
    assert ap([0] * 30, labels).mean == 0


def test_two_halves_of_a_region_match_it_once():
    assert ap([1, 1, 2, 2], [9] * 4).at_50 == 1 / 2
    assert ap([1] * 4, [8, 8, 9, 9]).at_50 == 1 / 2
    both = ap([1, 1, 2, 2, 3, 3, 3, 3], [9, 9, 9, 9, 7, 7, 8, 8])
    assert (both.at_50, both.at_75) == (2 / 4, 0)


def test_segments_outside_all_labels_are_not_counted():
    assert ap([1, 1, 0, 5, 5], [3, 3, 0, 0, 0]).mean == 1


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_equals_that_of_an_optimal_matching(seed):
    """As StarDist has it: pairs that reach the threshold, as many as possible, chosen by the Hungarian method."""
    labels = blobs(seed, ids=30)
    segmentation = np.where(np.random.default_rng(seed).random(labels.shape) < 0.1 * seed, 0, blobs(seed, ids=30))
    segmentation[: 4 * seed] = blobs(9)[: 4 * seed]
    ours = ap(segmentation, labels)
    truth, found = np.unique(labels), np.setdiff1d(segmentation, [0])
    overlap = np.array([[np.sum((labels == t) & (segmentation == f)) for f in found] for t in truth])
    union = np.array([[np.sum((labels == t) | (segmentation == f)) for f in found] for t in truth])
    shares = []
    for threshold in np.arange(50, 100, 5) / 100:
        matches = overlap / union >= threshold
        rows, columns = linear_sum_assignment(-(matches + (overlap / union) / (2 * len(truth))))
        hits = np.count_nonzero(matches[rows, columns])
        shares.append(hits / (len(truth) + len(found) - hits))
    assert (ours.mean, ours.at_50, ours.at_75) == pytest.approx((np.mean(shares), shares[0], shares[5]))
