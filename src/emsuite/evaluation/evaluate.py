"""The stage that scores a segmentation: from arrays and tables to scores, a list of the worst faults, and a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emsuite.blockwise.run import BlockWorkers
from emsuite.common.provenance import provenance
from emsuite.evaluation.compare import compare
from emsuite.evaluation.ground_truth import GroundTruth
from emsuite.evaluation.report import read_timings, write_pictures, write_report
from emsuite.evaluation.section_images import sections, shown_roi
from emsuite.evaluation.split_merge_errors import locate, worst_faults, write_faults
from emsuite.evaluation.threshold_sweep import Evaluation, check_lookup, evaluate, with_edits, write_scores
from emsuite.io.skeletons import load_skeletons
from emsuite.io.volume import fingerprint, format_roi, open_volume, parse_roi, split_path

_WORST = 20  # faults of each kind that are listed
_SHOWN = ("raw", "fragments", "segmentation", "labels")  # options of view.py


@dataclass(frozen=True)
class Tables:
    """What lies beside the volumes: lookup tables and edges of the fragments, skeletons, timings of earlier stages."""

    lookup: Path | None = None
    edges: Path | None = None
    skeletons: Path | None = None
    timings: Sequence[Path] = ()


def score(
    arrays: Mapping[str, Path],
    tables: Tables,
    out: Path,
    *,
    roi: str | None = None,
    every_edit: bool = False,
    block_size: Sequence[int] | None = None,
    workers: BlockWorkers = 1,
    viewer: Sequence[str] = (),
) -> Evaluation:
    """Score a segmentation and write contingency/, errors.csv, report.html with pictures, scores.csv, scores.json.

    scores.json is written last. A stopped run keeps the blocks that it has compared.

    Args:
        arrays: paths of `labels` and of `fragments` (with `tables.lookup`) or `segmentation`; optionally of `mask`,
            `raw` and `affs`.
        tables: paths of tables beside the volumes.
        out: the folder to write to.
        roi: score `z0:z1,y0:y1,x0:x1` (nm) alone; None: all that labels and segmentation cover.
        every_edit: count edits at every threshold, not at the best one alone.
        block_size: z, y, x in nm.
        workers: processes, or settings for Slurm.
        viewer: the command, in words, that shows a folder of results; the report quotes it.

    Raises:
        BadInput: inputs do not fit together.
    """
    opened = {name: open_volume(path) for name, path in arrays.items()}
    stages = read_timings(tables.timings)
    segmentation = opened.get("fragments") or opened["segmentation"]
    skeletons = load_skeletons(tables.skeletons) if tables.skeletons else None
    truth = GroundTruth(opened["labels"], opened.get("mask"), skeletons)
    if tables.lookup:
        check_lookup(tables.lookup, segmentation, tables.edges)
    scored = truth.common_roi(segmentation, parse_roi(roi, truth.labels) if roi else None)
    shown = (opened.get("raw"), opened.get("affs"))
    shown_roi(scored, truth, *shown)
    (out / "scores.json").unlink(missing_ok=True)  # what a run that is killed from here on leaves is not whole
    comparison = compare(segmentation, truth, scored, out / "contingency", block_size=block_size, workers=workers)
    evaluation = evaluate(comparison, tables.lookup)
    if tables.lookup and tables.edges:
        evaluation = with_edits(evaluation, comparison, tables.lookup, tables.edges, every_edit)
    faults = locate(worst_faults(evaluation.table, _WORST), comparison, evaluation, segmentation, truth)
    pictures = sections(evaluation, truth, segmentation, *shown)
    inputs = {**arrays, "lookup": tables.lookup, "edges": tables.edges, "skeletons": tables.skeletons}
    given = {name: path for name, path in inputs.items() if path}
    record = provenance({"roi": format_roi(scored)}, given, fingerprint=fingerprint)
    title = f"Segmentation of {split_path(truth.labels.path)[0].stem}"
    look = [*viewer, str(out)]
    look += [word for name in _SHOWN if name in arrays for word in (f"--{name}", str(arrays[name]))]
    write_report(out / "report.html", evaluation, pictures, faults, stages, record, title, look)
    write_pictures(out, evaluation, pictures)
    write_faults(out / "errors.csv", faults)
    write_scores(out, evaluation, record)
    return evaluation
