"""Scores of a segmentation against ground truth, and the table of all metrics that an evaluation writes.

The scores of regions are variation of information and Rand. All are computed from one contingency table, and none
counts voxels of label 0 (not annotated). Without labels, the table counts skeleton nodes instead of voxels. Voxels with
a label but in segment 0 do count:

- For the variation of information, the Rand index and `PairScores`, segment 0 is a segment like any other, as in
  funlib.evaluate's `rand_voi` and waterz.
- For the adapted Rand error, each voxel of segment 0 is a segment of its own, as in the SNEMI3D and CREMI challenges.

A new metric is a function here and an entry in `METRICS`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.evaluation.contingency import Contingency, contingency

if TYPE_CHECKING:  # who needs a score of two arrays need not load SciPy
    from emsuite.evaluation.min_cut import Edits
    from emsuite.evaluation.run_length import RunLength


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


def rand_index_of(table: Contingency) -> float:
    """Return the share, 0 to 1, of pairs of distinct voxels that both partitions join, or both separate.

    Rand 1971, J. American Statistical Association 66:846. Raises BadInput if the table is empty.
    """
    together, in_segments, in_labels = (
        _voxel_pairs(counts) for counts in (_not_empty(table).counts, table.by_segment.voxels, table.by_label.voxels)
    )
    everything = _voxel_pairs(np.array([table.voxels]))
    return _ratio(everything + 2 * together - in_segments - in_labels, everything)


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


@dataclass(frozen=True)
class Measurements:
    """One segmentation against its ground truth: what the functions in `METRICS` take.

    `table` counts the labelled voxels or, without labels, skeleton nodes. `run_length` and `nodes` (all skeleton nodes)
    are None without skeletons, `synapses` (the nodes at synapses) without marked nodes; `edits` is None where they were
    not counted.
    """

    table: Contingency
    run_length: "RunLength | None" = None
    edits: "Edits | None" = None
    nodes: Contingency | None = None
    synapses: Contingency | None = None

    @cached_property
    def voi(self) -> VariationOfInformation:
        """The variation of information, computed once for its three columns."""
        return variation_of_information_of(self.table)

    @cached_property
    def adapted_rand(self) -> AdaptedRand:
        """The adapted Rand error, computed once for its three columns."""
        return adapted_rand_of(self.table)

    @cached_property
    def pairs(self) -> PairScores:
        """The published pair scores, computed once for their five columns."""
        return pair_scores_of(self.table)

    @cached_property
    def node_voi(self) -> VariationOfInformation | None:
        """The variation of information over skeleton nodes."""
        return None if self.nodes is None else variation_of_information_of(self.nodes)

    @cached_property
    def synapse_voi(self) -> VariationOfInformation | None:
        """The variation of information over the skeleton nodes at synapses."""
        return None if self.synapses is None else variation_of_information_of(self.synapses)


@dataclass(frozen=True)
class Metric:
    """A column of scores.csv.

    `function` takes the attribute `takes` of `Measurements`; where that is None, the metric is None. `heading` is the
    column's heading in the report, where `format` writes the values; the report leaves out metrics without a heading.
    """

    takes: Literal["table", "voi", "adapted_rand", "pairs", "run_length", "edits", "node_voi", "synapse_voi"]
    function: Callable[[Any], float | int]
    unit: str
    meaning: str
    heading: str = ""
    format: Callable[[Any], str] = "{:.4f}".format


def _micrometres(nanometres: float) -> str:
    return f"{nanometres / 1000:.3f}"


METRICS: dict[str, Metric] = {
    "voi_split": Metric("voi", attrgetter("split"), "bits", "H(segmentation given labels); 0 is perfect", "VOI split"),
    "voi_merge": Metric("voi", attrgetter("merge"), "bits", "H(labels given segmentation); 0 is perfect", "VOI merge"),
    "voi_sum": Metric("voi", attrgetter("sum"), "bits", "variation of information: the sum of both", "VOI sum"),
    "adapted_rand_error": Metric(
        "adapted_rand",
        attrgetter("error"),
        "0 to 1",
        "1 - F, where F is the harmonic mean of precision and recall",
        "adapted Rand error",
    ),
    "precision": Metric(
        "adapted_rand", attrgetter("precision"), "0 to 1", "precision of pairs of voxels; merges lower it"
    ),
    "recall": Metric("adapted_rand", attrgetter("recall"), "0 to 1", "recall of pairs of voxels; splits lower it"),
    "rand_index": Metric(
        "table", rand_index_of, "0 to 1", "share of pairs of voxels that are together in both, or apart in both"
    ),
    "erl": Metric(
        "run_length", attrgetter("erl"), "nm", "expected run length along the skeletons", "ERL (µm)", _micrometres
    ),
    "nerl": Metric(
        "run_length", attrgetter("nerl"), "0 to 1", "`erl` as a share of the longest possible", "NERL", "{:.3f}".format
    ),
    "splits": Metric("run_length", attrgetter("splits"), "count", "splits along the skeletons", "splits", str),
    "merges": Metric("run_length", attrgetter("merges"), "count", "merges of skeletons", "merges", str),
    "segments": Metric("table", segment_count, "count", "segments that overlap the labels", "segments", "{:,}".format),
    "splits_needed": Metric(
        "edits",
        attrgetter("splits"),
        "count",
        "splits that correct the segmentation, by the min-cut metric (see below)",
        "splits needed",
        str,
    ),
    "merges_needed": Metric(
        "edits",
        attrgetter("merges"),
        "count",
        "merges as the published min-cut metric counts them",
        "merges needed",
        str,
    ),
    "unsplittable": Metric("edits", attrgetter("unsplittable"), "count", "fragments under several skeletons"),
    "joins_needed": Metric(
        "edits", attrgetter("joins"), "count", "merges that in fact correct it (see below)", "joins needed", str
    ),
    "rand_split": Metric("pairs", attrgetter("rand_split"), "0 to 1", "Rand of pairs within a label; 1 is perfect"),
    "rand_merge": Metric("pairs", attrgetter("rand_merge"), "0 to 1", "Rand of pairs within a segment; 1 is perfect"),
    "nvi_split": Metric("pairs", attrgetter("nvi_split"), "0 to 1", "`voi_split` as a share of the joint entropy"),
    "nvi_merge": Metric("pairs", attrgetter("nvi_merge"), "0 to 1", "`voi_merge` as a share of the joint entropy"),
    "nid": Metric("pairs", attrgetter("nid"), "0 to 1", "normalized information distance; 0 is perfect"),
    "node_voi_split": Metric(
        "node_voi", attrgetter("split"), "bits", "as `voi_split`, over skeleton nodes", "VOI split of nodes"
    ),
    "node_voi_merge": Metric(
        "node_voi", attrgetter("merge"), "bits", "as `voi_merge`, over skeleton nodes", "VOI merge of nodes"
    ),
    "synapse_voi_split": Metric("synapse_voi", attrgetter("split"), "bits", "as `node_voi_split`, at synapses alone"),
    "synapse_voi_merge": Metric("synapse_voi", attrgetter("merge"), "bits", "as `node_voi_merge`, at synapses alone"),
}
"""All metrics, by their column in scores.csv and in this order; tables of earlier runs hold these names."""

Scores = dict[str, Any]
"""A row of scores.csv: `threshold` (None without one) and each of `METRICS`, None where it was not measured."""


def compute_metrics(measurements: Measurements, names: Iterable[str] = tuple(METRICS)) -> Scores:
    """Return the metrics of these `names`; raise BadInput if nothing is labelled."""
    values: Scores = {}
    for name in names:
        subject = getattr(measurements, METRICS[name].takes)
        values[name] = None if subject is None else METRICS[name].function(subject)
    return values
