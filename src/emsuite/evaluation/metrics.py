"""The table of all metrics that an evaluation writes: the columns of scores.csv, and what each is computed from.

A new metric is an entry in `METRICS`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

from emsuite.evaluation.contingency import Contingency
from emsuite.evaluation.scores import (
    AdaptedRand,
    AveragePrecision,
    CremiScore,
    PairScores,
    SectionScores,
    VariationOfInformation,
    adapted_rand_of,
    average_precision_of,
    cremi_score_of,
    pair_scores_of,
    rand_index_of,
    section_scores_of,
    segment_count,
    variation_of_information_of,
)

if TYPE_CHECKING:  # who needs a score of two arrays need not load SciPy
    from emsuite.evaluation.min_cut import Edits
    from emsuite.evaluation.run_length import RunLength


@dataclass(frozen=True)
class Measurements:
    """One segmentation against its ground truth: what the functions in `METRICS` take.

    `table` counts the labelled voxels or, without labels, skeleton nodes. `run_length` and `nodes` (all skeleton nodes)
    are None without skeletons, `synapses` (the nodes at synapses) without marked nodes; `edits` is None where they were
    not counted, and `section_tables` (a table for each z-section) where sections are not scored.
    """

    table: Contingency
    run_length: "RunLength | None" = None
    edits: "Edits | None" = None
    nodes: Contingency | None = None
    synapses: Contingency | None = None
    section_tables: Sequence[Contingency] | None = None

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
    def instances(self) -> AveragePrecision:
        """The average precision of instances, computed once for its three columns."""
        return average_precision_of(self.table)

    @cached_property
    def cremi(self) -> CremiScore:
        """The score of the CREMI challenge, computed once for its two columns."""
        return cremi_score_of(self.table)

    @cached_property
    def sections(self) -> SectionScores | None:
        """The scores of single sections, computed once for their four columns."""
        return None if self.section_tables is None else section_scores_of(self.section_tables)

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

    takes: Literal[
        "table", "voi", "adapted_rand", "pairs", "cremi", "sections", "run_length", "edits", "node_voi", "synapse_voi",
        "instances",
    ]  # fmt: skip
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
    "cremi_score": Metric(
        "cremi",
        attrgetter("score"),
        "",
        "the CREMI challenge's: the geometric mean of `voi_sum` and `cremi_rand_error`; 0 is perfect",
        "CREMI score",
    ),
    "cremi_rand_error": Metric(
        "cremi", attrgetter("rand_error"), "0 to 1", "the adapted Rand error as CREMI counts pairs (see below)"
    ),
    "section_voi_split": Metric(
        "sections",
        attrgetter("voi.split"),
        "bits",
        "`voi_split` of single z-sections, their mean",
        "VOI split in sections",
    ),
    "section_voi_merge": Metric(
        "sections",
        attrgetter("voi.merge"),
        "bits",
        "`voi_merge` of single z-sections, their mean",
        "VOI merge in sections",
    ),
    "section_voi_sum": Metric("sections", attrgetter("voi.sum"), "bits", "the sum of both", "VOI sum in sections"),
    "section_rand_error": Metric(
        "sections",
        attrgetter("rand_error"),
        "0 to 1",
        "`adapted_rand_error` of single z-sections, their mean",
        "adapted Rand error in sections",
    ),
    "average_precision": Metric(
        "instances",
        attrgetter("mean"),
        "0 to 1",
        "TP / (TP + FP + FN) of instances, mean over overlaps of 0.5 to 0.95 (see below); 1 is perfect",
        "mAP",
    ),
    "ap_50": Metric("instances", attrgetter("at_50"), "0 to 1", "the same for an overlap of 0.5 alone", "AP-50"),
    "ap_75": Metric("instances", attrgetter("at_75"), "0 to 1", "the same for an overlap of 0.75 alone"),
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
