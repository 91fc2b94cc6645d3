"""Evaluate a segmentation: from arrays and tables to scores, a list of the largest errors, and a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emsuite.blockwise.run import Workers
from emsuite.common.provenance import provenance
from emsuite.evaluation.compare import compare
from emsuite.evaluation.ground_truth import GroundTruth
from emsuite.evaluation.report import read_timings, write_pictures, write_report
from emsuite.evaluation.section_images import common_roi_of_pictures, draw_sections
from emsuite.evaluation.split_merge_errors import largest_errors, locate_errors, write_errors
from emsuite.evaluation.threshold_sweep import Evaluation, add_edits, check_lookup, score_thresholds, write_scores
from emsuite.io.skeletons import load_skeletons
from emsuite.io.volume import format_roi, open_volume, parse_roi, split_path

_LISTED = 20  # errors of each kind in errors.csv and in the report


@dataclass(frozen=True)
class Tables:
    """The inputs that are no volumes: lookup tables and edges of the fragments, skeletons, timings of earlier stages."""

    lookup: Path | None = None
    edges: Path | None = None
    skeletons: Path | None = None
    timings: Sequence[Path] = ()


def evaluate(
    arrays: Mapping[str, Path],
    tables: Tables,
    out: Path,
    *,
    view_command: Sequence[str],
    roi: str | None = None,
    every_edit: bool = False,
    block_size: Sequence[int] | None = None,
    workers: Workers = 1,
) -> Evaluation:
    """Write contingency/, errors.csv, report.html and its pictures, scores.csv and, last, scores.json.

    Args:
        arrays: `labels`, and either `fragments` (with `tables.lookup`) or `segmentation`; optionally `mask`, `raw` and
            `affs`.
        tables: The other inputs.
        out: The folder to write. If an earlier run was stopped, the blocks that it compared are kept.
        view_command: The words of a command that shows the volumes; the report appends a position (nm, z,y,x).
        roi: The region to score, as `parse_roi` reads it; by default the region that all arrays cover.
        every_edit: Whether to count edits at every threshold, not only at the best.
        block_size: In nm; 256 voxels per axis by default.
        workers: Processes, or jobs of a cluster.

    Raises:
        BadInput: An input is missing or does not fit the others.
    """
    volumes = {name: open_volume(path) for name, path in arrays.items()}
    timings = read_timings(tables.timings)
    segmentation = volumes.get("fragments") or volumes["segmentation"]
    skeletons = load_skeletons(tables.skeletons) if tables.skeletons else None
    truth = GroundTruth(volumes["labels"], volumes.get("mask"), skeletons)
    if tables.lookup:
        check_lookup(tables.lookup, segmentation, tables.edges)
    scored_roi = truth.common_roi(segmentation, parse_roi(roi, truth.labels) if roi else None)
    shown = (volumes.get("raw"), volumes.get("affs"))
    common_roi_of_pictures(scored_roi, truth, *shown)
    (out / "scores.json").unlink(missing_ok=True)  # if this run is killed from here on, its output is incomplete
    comparison = compare(segmentation, truth, scored_roi, out / "contingency", block_size=block_size, workers=workers)
    evaluation = score_thresholds(comparison, tables.lookup)
    if tables.lookup and tables.edges:
        evaluation = add_edits(evaluation, comparison, tables.lookup, tables.edges, every_edit)
    errors = locate_errors(largest_errors(evaluation.table, _LISTED), comparison, evaluation, segmentation, truth)
    pictures = draw_sections(evaluation, truth, segmentation, *shown)
    inputs = {**arrays, "lookup": tables.lookup, "edges": tables.edges, "skeletons": tables.skeletons}
    record = provenance({"roi": format_roi(scored_roi)}, {name: path for name, path in inputs.items() if path})
    title = f"Segmentation of {split_path(truth.labels.path)[0].stem}"
    write_report(out / "report.html", evaluation, pictures, errors, timings, record, title, view_command)
    write_pictures(out, evaluation, pictures)
    write_errors(out / "errors.csv", errors)
    write_scores(out, evaluation, record)
    return evaluation
