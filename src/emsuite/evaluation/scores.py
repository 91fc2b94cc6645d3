"""Scores of a segmentation against ground truth, and the table of all metrics that an evaluation writes.

The scores of regions are variation of information and Rand. All are computed from one contingency table, and none
counts voxels of label 0 (not annotated). Voxels with a label but in segment 0 do count:

- For the variation of information and the Rand index, segment 0 is a segment like any other, as in funlib.evaluate's
  `rand_voi` and waterz.
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

    `run_length` is None without skeletons; `edits` is None where they were not counted.
    """

    table: Contingency
    run_length: "RunLength | None" = None
    edits: "Edits | None" = None

    @cached_property
    def voi(self) -> VariationOfInformation:
        """The variation of information, computed once for its three columns."""
        return variation_of_information_of(self.table)

    @cached_property
    def adapted_rand(self) -> AdaptedRand:
        """The adapted Rand error, computed once for its three columns."""
        return adapted_rand_of(self.table)


@dataclass(frozen=True)
class Metric:
    """A column of scores.csv.

    `function` takes the attribute `takes` of `Measurements`; where that is None, the metric is None. `heading` is the
    column's heading in the report, where `format` writes the values; the report leaves out metrics without a heading.
    """

    takes: Literal["table", "voi", "adapted_rand", "run_length", "edits"]
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
        "edits", attrgetter("merges"), "count", "merges that correct it, by the min-cut metric", "merges needed", str
    ),
    "unsplittable": Metric("edits", attrgetter("unsplittable"), "count", "fragments under several skeletons"),
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
