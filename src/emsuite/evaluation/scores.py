"""Scores of the regions of a segmentation against ground truth.

The scores of regions are variation of information and Rand. All are computed from one contingency table, and none
counts voxels of label 0 (not annotated). Without labels, the table counts skeleton nodes instead of voxels. Voxels with
a label but in segment 0 do count:

- For the variation of information, the Rand index and `PairScores`, segment 0 is a segment like any other, as in
  funlib.evaluate's `rand_voi` and waterz.
- For the adapted Rand error, each voxel of segment 0 is a segment of its own, as in the SNEMI3D and CREMI challenges.

A new metric is a function here and an entry of `METRICS` in `metrics.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.evaluation.contingency import Contingency, contingency

_PERCENT_OF_UNION = range(50, 100, 5)


@dataclass(frozen=True)
class VariationOfInformation:
    """In bits: `split` = H(segmentation | labels), `merge` = H(labels | segmentation); 0 is perfect."""

    split: float
    merge: float

    @property
    def sum(self) -> float:
        """The variation of information, split + merge."""
        return self.split + self.merge


@dataclass(frozen=True)
class AdaptedRand:
    """`error` = 1 - F, where F is the harmonic mean of `precision` (lowered by merges) and `recall` (by splits)."""

    error: float
    precision: float
    recall: float


@dataclass(frozen=True)
class PairScores:
    """The scores that the published evaluation (funlib.evaluate) writes beside the variation of information.

    `rand_split` and `rand_merge` are the shares of pairs within a label, or within a segment, that lie in one of the
    other; pairs of a voxel with itself count, 1 is perfect. `nvi_split` and `nvi_merge` are the variation of
    information over the joint entropy, `nid` is the normalized information distance; 0 is perfect.
    """

    rand_split: float
    rand_merge: float
    nvi_split: float
    nvi_merge: float
    nid: float


@dataclass(frozen=True)
class CremiScore:
    """The score of the CREMI challenge: the geometric mean of the variation of information and `rand_error`.

    `rand_error`, 0 to 1, is the adapted Rand error as the challenge counts pairs; 0 is perfect for both.
    """

    score: float
    rand_error: float


@dataclass(frozen=True)
class AveragePrecision:
    """The shares TP / (TP + FP + FN) of instances that match by their overlap: at 0.5, at 0.75, and the mean.

    `mean` is over the thresholds 0.5, 0.55 ... 0.95 of the intersection over union; 1 is perfect.
    """

    mean: float
    at_50: float
    at_75: float


@dataclass(frozen=True)
class SectionScores:
    """Scores of single z-sections: the mean of each over all sections, weighted by their labelled voxels."""

    voi: VariationOfInformation
    rand_error: float


def variation_of_information(segmentation: np.ndarray, labels: np.ndarray) -> VariationOfInformation:
    """Return the variation of information of a segmentation (Meilă 2007, J. Multivariate Analysis 98, equation 16).

    Args:
        segmentation: Integer ids from 0 up, any number of axes.
        labels: The ground truth, integer ids of the same shape; label 0 is left out.

    Returns:
        H(segmentation | labels) and H(labels | segmentation) in bits.

    Raises:
        BadInput: The arrays differ in shape, hold no integers or ids below 0, or there is no label but 0.
    """
    return variation_of_information_of(contingency(segmentation, labels))


def adapted_rand(segmentation: np.ndarray, labels: np.ndarray) -> AdaptedRand:
    """Return the adapted Rand error of a segmentation; arguments and errors as for `variation_of_information`.

    Arganda-Carreras et al. 2015, Front. Neuroanat. 9:142, over pairs of distinct voxels, as scikit-image counts them.
    Its `adapted_rand_error` returns error, recall, precision, in this order.
    """
    return adapted_rand_of(contingency(segmentation, labels))


def rand_index(segmentation: np.ndarray, labels: np.ndarray) -> float:
    """Return the Rand index of a segmentation, as `rand_index_of`; arguments as for `variation_of_information`."""
    return rand_index_of(contingency(segmentation, labels))


def variation_of_information_of(table: Contingency) -> VariationOfInformation:
    """Return the variation of information of a contingency table; raise BadInput if the table is empty."""
    shared = _not_empty(table).counts.astype(np.float64)
    share = shared / table.voxels
    in_label = table.by_label.voxels[table.by_label.inverse]
    in_segment = table.by_segment.voxels[table.by_segment.inverse]
    return VariationOfInformation(
        split=float(np.sum(share * np.log2(in_label / shared))),
        merge=float(np.sum(share * np.log2(in_segment / shared))),
    )


def adapted_rand_of(table: Contingency) -> AdaptedRand:
    """Return the adapted Rand error of a contingency table; raise BadInput if the table is empty."""
    has_segment = _not_empty(table).segments != 0
    together = _voxel_pairs(table.counts[has_segment])
    in_segments = _voxel_pairs(table.by_segment.voxels[table.by_segment.ids != 0])
    in_labels = _voxel_pairs(table.by_label.voxels)
    return AdaptedRand(
        error=1 - _ratio(2 * together, in_segments + in_labels),
        precision=_ratio(together, in_segments),
        recall=_ratio(together, in_labels),
    )


def pair_scores_of(table: Contingency) -> PairScores:
    """Return the published pair scores of a contingency table; raise BadInput if the table is empty."""
    shared, labels, segments = (
        counts.astype(np.float64)
        for counts in (_not_empty(table).counts, table.by_label.voxels, table.by_segment.voxels)
    )
    together = np.sum(shared**2)
    joint, of_labels, of_segments = (_entropy(counts / table.voxels) for counts in (shared, labels, segments))
    voi = variation_of_information_of(table)
    largest = max(of_labels, of_segments)
    return PairScores(
        rand_split=float(together / np.sum(labels**2)),
        rand_merge=float(together / np.sum(segments**2)),
        nvi_split=voi.split / joint if joint else 0.0,
        nvi_merge=voi.merge / joint if joint else 0.0,
        nid=1 - (of_labels - voi.merge) / largest if largest else 0.0,
    )


def cremi_score_of(table: Contingency) -> CremiScore:
    """Return the score of the CREMI challenge; raise BadInput if the table is empty.

    Source: cremi/cremi_python, evaluation/voi.py and rand.py. Unlike `adapted_rand_of`, pairs of a voxel with itself
    count; all voxels of segment 0 together count their share of the voxels, which is at most one pair.
    """
    sizes = _not_empty(table).counts.astype(np.float64)
    in_segment, in_label = (regions.voxels.astype(np.float64) for regions in (table.by_segment, table.by_label))
    outside = float(np.sum(sizes[table.segments == 0])) / table.voxels
    together = float(np.sum(sizes[table.segments != 0] ** 2)) + outside
    in_segments = float(np.sum(in_segment[table.by_segment.ids != 0] ** 2)) + outside
    error = 1 - 2 * together / (in_segments + float(np.sum(in_label**2)))
    return CremiScore(float(np.sqrt(variation_of_information_of(table).sum * max(error, 0.0))), error)


def section_scores_of(tables: Sequence[Contingency]) -> SectionScores:
    """Return the scores of sections from the table of each; raise BadInput if all are empty.

    Where no segment and no label is in two sections, the variation of information is that of the volume.
    """
    labelled = [table for table in tables if table.voxels]
    if not labelled:
        _not_empty(contingency(np.empty(0, np.uint64), np.empty(0, np.uint64)))
    weights = np.array([table.voxels for table in labelled], np.float64)
    weights /= weights.sum()
    vois = [variation_of_information_of(table) for table in labelled]
    return SectionScores(
        VariationOfInformation(
            float(np.dot(weights, [voi.split for voi in vois])), float(np.dot(weights, [voi.merge for voi in vois]))
        ),
        float(np.dot(weights, [adapted_rand_of(table).error for table in labelled])),
    )


def rand_index_of(table: Contingency) -> float:
    """Return the share, 0 to 1, of pairs of distinct voxels that both partitions join, or both separate.

    Rand 1971, J. American Statistical Association 66:846. Raises BadInput if the table is empty.
    """
    together, in_segments, in_labels = (
        _voxel_pairs(counts) for counts in (_not_empty(table).counts, table.by_segment.voxels, table.by_label.voxels)
    )
    everything = _voxel_pairs(np.array([table.voxels]))
    return _ratio(everything + 2 * together - in_segments - in_labels, everything)


def average_precision_of(table: Contingency) -> AveragePrecision:
    """Return the average precision of instances; raise BadInput if the table is empty.

    A segment and a label match where their intersection over union reaches the threshold, each with one of the other.
    Only voxels with a label count: a segment outside all labels is no false positive. Segment 0 is no instance.

    Source: Caicedo et al. 2019, Nature Methods 16:1247, and StarDist (Schmidt et al. 2018), whose pairs must reach the
    threshold too. Without confidences of instances, there is no area under a curve as in COCO.
    """
    is_segment = _not_empty(table).segments != 0
    u, v = table.by_segment.inverse[is_segment], table.by_label.inverse[is_segment]
    shared = table.counts[is_segment]
    union = table.by_segment.voxels[u] + table.by_label.voxels[v] - shared
    instances = segment_count(table) + table.by_label.ids.size
    shares = []
    for percent in _PERCENT_OF_UNION:
        matches = 100 * shared >= percent * union  # whole numbers: a half is a half
        # at 50 %, two halves of a region match it both, and one of them counts
        pairs = np.count_nonzero(matches)
        hits = np.unique(u[matches]).size + np.unique(v[matches]).size - pairs
        shares.append(hits / (instances - hits))
    at = dict(zip(_PERCENT_OF_UNION, shares, strict=True))
    return AveragePrecision(float(np.mean(shares)), at[50], at[75])


def segment_count(table: Contingency) -> int:
    """Return the number of segments, without segment 0, that overlap labels."""
    return int(np.count_nonzero(table.by_segment.ids))


def _not_empty(table: Contingency) -> Contingency:
    if table.voxels == 0:
        raise BadInput("labels: hold nothing but 0 (not annotated) here; expected labelled voxels to score")
    return table


def _entropy(shares: np.ndarray) -> float:
    # in bits, of shares above 0
    return float(-np.sum(shares * np.log2(shares)))


def _voxel_pairs(counts: np.ndarray) -> float:
    # ordered pairs of distinct voxels; as a float, because the square of a teravoxel does not fit 64 bits
    sizes = counts.astype(np.float64)
    return float(np.sum(sizes * (sizes - 1)))


def _ratio(part: float, whole: float) -> float:
    # without any pair, no pair is wrong
    return part / whole if whole else 1.0
