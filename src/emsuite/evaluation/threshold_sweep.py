"""Score a segmentation, or fragments under every lookup table of a sweep of thresholds, against ground truth.

    comparison --> contingency table, fragments under nodes --- lookup table of each threshold --> scores
    graph -------------------------------------------------------------------------------------> edits

The cost of a threshold depends on the number of fragments alone, since the voxels and nodes were read once before.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.files import write_json, write_table
from emsuite.common.geometry import Roi
from emsuite.common.outputs import read_manifest
from emsuite.common.progress import progress
from emsuite.common.provenance import recorded_checksum
from emsuite.evaluation.compare import Comparison, node_table
from emsuite.evaluation.contingency import Contingency
from emsuite.evaluation.metrics import METRICS, Measurements, Scores, compute_metrics
from emsuite.evaluation.min_cut import count_edits
from emsuite.evaluation.run_length import expected_run_length
from emsuite.io.regions import format_roi
from emsuite.io.relabel import lookup_rows, relabel, segments_of_rows
from emsuite.io.skeletons import Skeletons
from emsuite.io.volume import Volume, fingerprint, split_path
from emsuite.segmentation.find_segments import lookup_digest, lookup_manifest, read_lookup, read_thresholds
from emsuite.segmentation.graph_tables import edges_digest, graph_manifest, read_edges

_NEARLY_ALL = 0.95  # a segment that holds this share of several neurons separates nothing
_EDIT_METRICS = [name for name, metric in METRICS.items() if metric.takes == "edits"]


class Lookup(NamedTuple):
    """The segment (uint64) of each fragment (uint64) at one threshold."""

    fragments: np.ndarray
    segments: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """The scores of every threshold over `roi` (nm).

    `table` and `lookup` belong to the best threshold; `lookup` is None if a segmentation was scored, not fragments. The
    table counts voxels or, if `of_nodes`, skeleton nodes.
    """

    rows: list[Scores]
    best: Scores
    roi: Roi
    table: Contingency
    lookup: Lookup | None
    of_nodes: bool = False

    @property
    def scored(self) -> str:
        """What the scores count, in words."""
        return "skeleton nodes" if self.of_nodes else "labelled voxels"

    @property
    def headline(self) -> str:
        """The best scores in one line, and the warning if there is one."""
        best = self.best
        voi = f"VOI split {best['voi_split']:.3f}, merge {best['voi_merge']:.3f}, sum {best['voi_sum']:.3f} bits"
        over = f" over {self.scored}" if self.of_nodes else ""
        at = "" if best["threshold"] is None else f" at threshold {best['threshold']}"
        in_sections = "" if best["section_voi_sum"] is None else f", {best['section_voi_sum']:.3f} in sections"
        return voi + over + in_sections + at + (f". Warning: {self.warning.rstrip('.')}" if self.warning else "")

    @property
    def warning(self) -> str | None:
        """A sentence if even the best segmentation is none: all in one segment or in none, or no fragments merged."""
        segments, labels = self.table.by_segment, self.table.by_label
        is_segment = segments.ids != 0
        largest, neurons = segments.voxels[is_segment].max(initial=0) / self.table.voxels, labels.ids.size
        if not is_segment.any():
            return f"None of the {self.scored} lies in a segment."
        if neurons > 1 and largest >= _NEARLY_ALL > labels.voxels.max() / self.table.voxels:
            return f"One segment holds {largest:.0%} of the {self.scored} of {neurons} neurons: they are not separated."
        if self.lookup is not None and self.lookup.fragments.size > neurons and _all_differ(self.lookup.segments):
            return f"Each of the {self.lookup.fragments.size:,} fragments is a segment of its own: none were merged."
        return None

    def segments_of(self, voxels: np.ndarray) -> np.ndarray:
        """Return the best segmentation of an array of fragments; return `voxels` itself if it is segments already."""
        return voxels if self.lookup is None else relabel(voxels, *self.lookup)


def _all_differ(ids: np.ndarray) -> bool:
    return np.unique(ids).size == ids.size


def check_lookup(lookup: Path, fragments: Volume, edges: Path | None = None) -> None:
    """Raise BadInput if the lookup tables or the edges are missing, or were not made from each other."""
    # fragments of another run may carry the same ids: only their digest tells them apart
    manifest, about = read_manifest(split_path(fragments.path)[0]), lookup_manifest(lookup)
    digest, of_lookup = manifest.get("digest"), about.get("fragments_digest")
    if digest is not None and digest != of_lookup:
        raise BadInput(f"{lookup}: was made from other fragments than {fragments.path}; find their segments first")
    if not read_thresholds(lookup):
        raise BadInput(f"{lookup}: holds no threshold, expected the lookup tables of a sweep")
    if edges is None:
        return
    if graph_manifest(edges).get("fragments_digest") != of_lookup:
        raise BadInput(f"{edges}: was made from other fragments than {lookup}; agglomerate these first")
    if not _are_edges_of(about, edges):
        raise BadInput(f"{edges}: {lookup} was made from other edges; give those, or find the segments of these first")


def _are_edges_of(lookup: Mapping[str, Any], edges: Path) -> bool:
    """Whether lookup tables with this manifest were made from these edges, as far as it tells."""
    if "edges_digest" in lookup:
        return bool(lookup["edges_digest"] == edges_digest(edges))
    # of an earlier version: names and sizes of the tables
    recorded = recorded_checksum(lookup, "edges")
    return recorded is None or recorded == fingerprint(edges)


def score_thresholds(comparison: Comparison, lookup: Path | None = None) -> Evaluation:
    """Score a compared segmentation, or compared fragments under each of their lookup tables.

    Args:
        comparison: A segmentation or fragments, compared with ground truth.
        lookup: The folder of lookup tables, if fragments were compared.

    Returns:
        The scores. The best threshold has the smallest VOI sum, that of sections where they are scored; among equals it
        is the lowest.

    Raises:
        BadInput: The lookup tables lack some of the fragments, or nothing is labelled.
    """
    roi, of_nodes = comparison.grid.total, comparison.of_nodes
    if lookup is None:
        row = _score(None, comparison.table, comparison.skeletons, comparison.node_segments, comparison.sections)
        return Evaluation([row], row, roi, comparison.table, None, of_nodes)
    rows, best = [], None
    thresholds, criterion = sorted(read_thresholds(lookup)), "section_voi_sum" if comparison.sections else "voi_sum"
    for merged in _merge_fragments(comparison, lookup, progress(thresholds, what="thresholds")):
        sections = [section.map(*merged.lookup) for section in comparison.sections]
        rows.append(_score(merged.threshold, merged.table, comparison.skeletons, merged.node_segments, sections))
        if best is None or rows[-1][criterion] < best.best[criterion]:
            best = Evaluation(rows, rows[-1], roi, merged.table, merged.lookup, of_nodes)
    assert best is not None
    return best


def add_edits(evaluation: Evaluation, comparison: Comparison, lookup: Path, edges: Path, every: bool) -> Evaluation:
    """Add the edits that the segmentation at the best threshold needs, or at `every` threshold, by the min-cut metric.

    Args:
        evaluation: The scores of `comparison` under the tables of `lookup`.
        comparison: Fragments, compared with ground truth.
        lookup: The folder of lookup tables.
        edges: The folder of the region adjacency graph's edges.
        every: Whether to count edits at every threshold.

    Raises:
        BadInput: There are no skeletons, or the score of an edge is NaN.
    """
    if comparison.skeletons is None:
        raise BadInput(f"{edges}: edits are counted by skeletons, expected skeletons beside the edges")
    graph = read_edges(edges)
    chosen = evaluation.rows if every else [evaluation.best]
    thresholds = progress([row["threshold"] for row in chosen if row["threshold"] is not None], what="edits")
    counted: dict[float | None, Scores] = {}
    for row, merged in zip(chosen, _merge_fragments(comparison, lookup, thresholds), strict=True):
        edits = count_edits(
            comparison.skeletons, comparison.node_segments, merged.node_segments, graph, merged.threshold
        )
        counted[merged.threshold] = row | compute_metrics(Measurements(merged.table, edits=edits), _EDIT_METRICS)
    rows = [counted.get(row["threshold"], row) for row in evaluation.rows]
    return replace(evaluation, rows=rows, best=counted[evaluation.best["threshold"]])


def write_scores(folder: Path, evaluation: Evaluation, provenance: dict[str, Any], lookup: Path | None = None) -> None:
    """Write `scores.csv` (a row per threshold) and, last, `scores.json` (the best row, and the provenance).

    Of fragments, `scores.json` tells by a digest which lookup tables were scored.
    """
    write_table(folder / "scores.csv", ["threshold", *METRICS], evaluation.rows)
    best = {"threshold": evaluation.best["threshold"], "best": evaluation.best, "roi": format_roi(evaluation.roi)}
    about = {"scored": evaluation.scored, "warning": evaluation.warning}
    if lookup is not None:
        about |= {"lookup_digest": lookup_digest(lookup)}
    write_json(folder / "scores.json", best | about | {"provenance": provenance})


class _MergedFragments(NamedTuple):
    """Compared fragments after `lookup` merged them: the table, and the segment (uint64) under each node."""

    threshold: float
    table: Contingency
    node_segments: np.ndarray
    lookup: Lookup


def _merge_fragments(comparison: Comparison, lookup: Path, thresholds: Iterable[float]) -> Iterator[_MergedFragments]:
    # the lookup tables of a sweep list the same fragments: find the rows once
    fragments, rows = np.empty(0, np.uint64), [np.empty(0, np.int64)] * 2
    compared_ids = (comparison.table.by_segment.ids, comparison.node_segments)
    for threshold in thresholds:
        columns = Lookup(*read_lookup(lookup, threshold))
        try:
            if not all(np.issubdtype(column.dtype, np.integer) for column in columns):
                raise BadInput(f"holds {columns.segments.dtype}, expected the id of a segment for each fragment")
            if not np.array_equal(columns.fragments, fragments):
                fragments, rows = columns.fragments, [lookup_rows(ids, columns.fragments) for ids in compared_ids]
        except BadInput as error:
            raise BadInput(f"{lookup}, threshold {threshold}: {error}") from None
        segments, node_segments = (segments_of_rows(rows_of_ids, columns.segments) for rows_of_ids in rows)
        yield _MergedFragments(threshold, comparison.table.relabelled(segments), node_segments, columns)


def _score(
    threshold: float | None,
    table: Contingency,
    skeletons: Skeletons | None,
    node_segments: np.ndarray,
    sections: Sequence[Contingency],
) -> Scores:
    measured = Measurements(table, section_tables=sections or None)
    if skeletons is None:
        return {"threshold": threshold} | compute_metrics(measured)
    synapse = skeletons.synapse
    measurements = replace(
        measured,
        run_length=expected_run_length(skeletons, node_segments),
        nodes=node_table(skeletons, node_segments),
        synapses=None if synapse is None or not synapse.any() else node_table(skeletons, node_segments, synapse),
    )
    return {"threshold": threshold} | compute_metrics(measurements)
