"""Score a segmentation, or fragments under every lookup table of a sweep, against ground truth.

    comparison --> contingency table, fragments under nodes --- lookup table of each threshold --> scores
    graph -------------------------------------------------------------------------------------> edits

What a threshold costs depends on the number of fragments alone: voxels and nodes were read once.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from funlib.geometry import Roi

from emsuite.common.errors import BadInput
from emsuite.common.files import write_json, write_table
from emsuite.common.outputs import manifest_path, read_json
from emsuite.common.progress import progress
from emsuite.common.relabel import lookup_rows, relabel, segments_of_rows
from emsuite.evaluation.compare import Comparison
from emsuite.evaluation.contingency import Contingency
from emsuite.evaluation.min_cut import count_edits
from emsuite.evaluation.run_length import expected_run_length
from emsuite.evaluation.scores import adapted_rand_of, rand_index_of, variation_of_information_of
from emsuite.io.skeletons import Skeletons
from emsuite.io.volume import Volume, format_roi, split_path
from emsuite.segmentation.find_segments import lookup_manifest, read_lookup, read_thresholds
from emsuite.segmentation.graph_tables import graph_manifest, read_edges


@dataclass(frozen=True)
class Scores:
    """One row of scores.csv: bits, shares of 1, nm (`erl`) and numbers.

    None are the scores of skeletons, and the edits that they need, where there are none, or these were not counted.
    """

    threshold: float | None
    voi_split: float
    voi_merge: float
    voi_sum: float
    adapted_rand_error: float
    precision: float
    recall: float
    rand_index: float
    erl: float | None
    nerl: float | None
    splits: int | None
    merges: int | None
    segments: int
    splits_needed: int | None = None
    merges_needed: int | None = None
    unsplittable: int | None = None


class Lookup(NamedTuple):
    """The segment (uint64) of each fragment (uint64) at one threshold."""

    fragments: np.ndarray
    segments: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """Scores for every threshold over `roi` (nm); `table` and `lookup` (None: no fragments) are those of the best."""

    rows: list[Scores]
    best: Scores
    roi: Roi
    table: Contingency
    lookup: Lookup | None

    def segments_of(self, voxels: np.ndarray) -> np.ndarray:
        """The best segmentation of an array of fragments (or of segments, where there are no fragments)."""
        return voxels if self.lookup is None else relabel(voxels, *self.lookup)


def check_lookup(lookup: Path, fragments: Volume, edges: Path | None = None) -> None:
    """Raises BadInput for lookup tables, or edges, that tell of other fragments, and for ones that are not there."""
    # fragments of another run may carry the same ids: only their digest tells them apart
    manifest = read_json(manifest_path(split_path(fragments.path)[0])) or {}
    digest, of_lookup = manifest.get("digest"), lookup_manifest(lookup).get("fragments_digest")
    if digest is not None and digest != of_lookup:
        raise BadInput(f"{lookup}: was made from other fragments than {fragments.path}; find their segments first")
    if not read_thresholds(lookup):
        raise BadInput(f"{lookup}: holds no threshold, expected the lookup tables of a sweep")
    if edges is not None and graph_manifest(edges).get("fragments_digest") != of_lookup:
        raise BadInput(f"{edges}: was made from other fragments than {lookup}; agglomerate these first")


def evaluate(comparison: Comparison, lookup: Path | None = None) -> Evaluation:
    """Score what was compared: a segmentation, or fragments under each of their lookup tables.

    The best threshold has the smallest VOI sum, the lowest such one among equals. Raises BadInput for tables of other
    fragments, and where nothing is labelled.
    """
    roi = comparison.grid.total
    if lookup is None:
        row = _score(None, comparison.table, comparison.skeletons, comparison.nodes)
        return Evaluation([row], row, roi, comparison.table, None)
    rows, best = [], None
    thresholds = sorted(read_thresholds(lookup))
    for merged in _sweep(comparison, lookup, progress(thresholds, what="thresholds")):
        rows.append(_score(merged.threshold, merged.table, comparison.skeletons, merged.nodes))
        if best is None or rows[-1].voi_sum < best.best.voi_sum:
            best = Evaluation(rows, rows[-1], roi, merged.table, merged.lookup)
    assert best is not None
    return best


def with_edits(evaluation: Evaluation, comparison: Comparison, lookup: Path, edges: Path, every: bool) -> Evaluation:
    """The evaluation with the edits needed at the best threshold, or at `every` one, by the graph's `edges`.

    Raises BadInput without skeletons, and for edges whose scores are NaN.
    """
    if comparison.skeletons is None:
        raise BadInput(f"{edges}: edits are counted by skeletons, and there are none; name some with --skeletons")
    graph = read_edges(edges)
    chosen = evaluation.rows if every else [evaluation.best]
    thresholds = progress([row.threshold for row in chosen if row.threshold is not None], what="edits")
    counted: dict[float | None, Scores] = {}
    for row, merged in zip(chosen, _sweep(comparison, lookup, thresholds), strict=True):
        edits = count_edits(comparison.skeletons, comparison.nodes, merged.nodes, graph, merged.threshold)
        counted[merged.threshold] = replace(
            row, splits_needed=edits.splits, merges_needed=edits.merges, unsplittable=edits.unsplittable
        )
    rows = [counted.get(row.threshold, row) for row in evaluation.rows]
    return replace(evaluation, rows=rows, best=counted[evaluation.best.threshold])


def write_scores(folder: Path, evaluation: Evaluation, provenance: dict[str, Any]) -> None:
    """Write `scores.csv` (a row per threshold) and, last, `scores.json` (the best one, and the provenance)."""
    write_table(folder / "scores.csv", [field.name for field in fields(Scores)], map(asdict, evaluation.rows))
    best = {"threshold": evaluation.best.threshold, "best": asdict(evaluation.best), "roi": format_roi(evaluation.roi)}
    write_json(folder / "scores.json", best | {"provenance": provenance})


class _Merged(NamedTuple):
    """A comparison of fragments after `lookup` merged them: its table, and the segment (uint64) under each node."""

    threshold: float
    table: Contingency
    nodes: np.ndarray
    lookup: Lookup


def _sweep(comparison: Comparison, lookup: Path, thresholds: Iterable[float]) -> Iterator[_Merged]:
    known, places = np.empty(0, np.uint64), [np.empty(0, np.int64)] * 2
    ids = (comparison.table.by_segment.ids, comparison.nodes)
    for threshold in thresholds:
        tables = Lookup(*read_lookup(lookup, threshold))
        try:
            if not all(np.issubdtype(column.dtype, np.integer) for column in tables):
                raise BadInput(f"holds {tables.segments.dtype}, expected the id of a segment for each fragment")
            if not np.array_equal(tables.fragments, known):
                known, places = tables.fragments, [lookup_rows(held, tables.fragments) for held in ids]
        except BadInput as error:
            raise BadInput(f"{lookup}, threshold {threshold}: {error}") from None
        merged, nodes = (segments_of_rows(place, tables.segments) for place in places)
        yield _Merged(threshold, comparison.table.relabelled(merged), nodes, tables)


def _score(threshold: float | None, table: Contingency, skeletons: Skeletons | None, nodes: np.ndarray) -> Scores:
    voi, rand = variation_of_information_of(table), adapted_rand_of(table)
    run: dict[str, Any] = dict.fromkeys(("erl", "nerl", "splits", "merges"))
    if skeletons is not None:
        run = asdict(expected_run_length(skeletons, nodes))
    return Scores(
        threshold=threshold,
        voi_split=voi.split,
        voi_merge=voi.merge,
        voi_sum=voi.sum,
        adapted_rand_error=rand.error,
        precision=rand.precision,
        recall=rand.recall,
        rand_index=rand_index_of(table),
        segments=int(np.count_nonzero(table.by_segment.ids)),
        **run,
    )
