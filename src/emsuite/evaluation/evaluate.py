"""Evaluate a segmentation: from arrays and tables to scores, a list of the largest errors, and a report."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emsuite.blockwise.run import BlockWorkers
from emsuite.common.errors import BadInput
from emsuite.common.files import remove_leftovers
from emsuite.common.geometry import Roi
from emsuite.common.provenance import provenance
from emsuite.common.state.lock import owned
from emsuite.common.state.origins import Reading
from emsuite.evaluation.compare import compare
from emsuite.evaluation.ground_truth import GroundTruth
from emsuite.evaluation.report import check_pictures, read_timings, write_pictures, write_report
from emsuite.evaluation.section_images import common_roi_of_pictures, draw_sections
from emsuite.evaluation.split_merge_errors import largest_errors, locate_errors, locate_on_skeletons, write_errors
from emsuite.evaluation.threshold_sweep import Evaluation, add_edits, check_lookup, score_thresholds, write_scores
from emsuite.io.regions import format_roi, parse_roi
from emsuite.io.skeletons import load_skeletons
from emsuite.io.volume import Volume, fingerprint, open_volume, split_path
from emsuite.segmentation.settings import ScoringSettings

_WRITTEN = ("scores.json", "scores.csv", "errors.csv", "report.html")
_SHOWN = ("raw", "fragments", "segmentation", "labels")  # options of the viewer
_LISTED = 20  # errors of each kind in errors.csv and in the report


@dataclass(frozen=True)
class Tables:
    """Inputs beside the volumes: lookup tables and edges of the fragments, skeletons, timings of earlier stages."""

    lookup: Path | None = None
    edges: Path | None = None
    skeletons: Path | None = None
    timings: Sequence[Path] = ()


@dataclass(frozen=True)
class _Inputs:
    """The opened inputs, which fit each other, and the ROI to score (nm). `segmentation` may be fragments."""

    segmentation: Volume
    truth: GroundTruth
    raw: Volume | None
    affinities: Volume | None
    roi: Roi


def _alone(evaluation: Callable[..., Evaluation]) -> Callable[..., Evaluation]:
    """Return the function `evaluation` so that one run at a time writes its folder, the third argument."""

    @functools.wraps(evaluation)
    def alone(arrays: Mapping[str, Path], tables: Tables, out: Path, **options: Any) -> Evaluation:
        with owned(out / ".scores.lock", out):
            remove_leftovers(*(out / name for name in _WRITTEN))
            return evaluation(arrays, tables, out, **options)

    return alone


@_alone
def evaluate(
    arrays: Mapping[str, Path],
    tables: Tables,
    out: Path,
    *,
    viewer: Sequence[str],
    roi: str | None = None,
    scoring: ScoringSettings | None = None,
    every_edit: bool = False,
    block_size: Sequence[int] | None = None,
    workers: BlockWorkers = 1,
) -> Evaluation:
    """Write contingency/, errors.csv, report.html and its pictures, scores.csv and, last, scores.json.

    Args:
        arrays: The paths of either `fragments` (with `tables.lookup`) or `segmentation`; optionally of `labels`,
            `mask`, `raw` and `affs`.
        tables: The other inputs. Without labels, skeletons are the ground truth: their nodes are scored, not voxels.
        out: The folder to write; blocks that a stopped run has compared are kept.
        viewer: The words of a command that shows the volumes; the report appends a position (nm, z,y,x).
        roi: The region to score, as `parse_roi` reads it; by default the region that all arrays cover.
        scoring: What of the ground truth is scored, and how; by default all of it, as one volume.
        every_edit: Whether to count edits at every threshold, not only at the best.
        block_size: In nm; 256 voxels per axis by default.
        workers: Processes, or settings for Slurm.

    Raises:
        BadInput: An input is missing or does not fit the others.
    """
    timings = read_timings(tables.timings)
    check_pictures(out)
    scoring = scoring or ScoringSettings()
    inputs, paths = _open(arrays, tables, roi, scoring.label_border), _paths(arrays, tables)
    reading = Reading.of(paths)
    (out / "scores.json").unlink(missing_ok=True)  # if this run is killed from here on, its output is incomplete
    segmentation, truth, roi_nm = inputs.segmentation, inputs.truth, inputs.roi
    more: dict[str, Any] = {"block_size": block_size, "in_sections": scoring.score_in_sections, "workers": workers}
    comparison = compare(segmentation, truth, roi_nm, out / "contingency", **more)
    evaluation = score_thresholds(comparison, tables.lookup)
    if tables.lookup and tables.edges:
        evaluation = add_edits(evaluation, comparison, tables.lookup, tables.edges, every_edit)
    errors = largest_errors(evaluation.table, _LISTED)
    if comparison.of_nodes:
        errors = locate_on_skeletons(errors, comparison, evaluation)
    else:
        errors = locate_errors(errors, comparison, evaluation, segmentation, truth)
    pictures = draw_sections(evaluation, truth, segmentation, inputs.raw, inputs.affinities)
    reading.check()
    asked = {"roi": format_roi(roi_nm)} | scoring.model_dump()
    record = provenance(asked, paths, fingerprint=fingerprint) | {"made_from": reading.made_from}
    truth_path = split_path(arrays["labels"])[0] if "labels" in arrays else tables.skeletons
    title = f"Segmentation of {truth_path.stem if truth_path else 'a volume'}"
    write_report(out / "report.html", evaluation, pictures, errors, timings, record, title, viewer)
    write_pictures(out, evaluation, pictures)
    write_errors(out / "errors.csv", errors)
    write_scores(out, evaluation, record, tables.lookup)
    return evaluation


def _open(arrays: Mapping[str, Path], tables: Tables, roi: str | None, border: float) -> _Inputs:
    volumes = {name: open_volume(path) for name, path in arrays.items()}
    segmentation = volumes.get("fragments") or volumes["segmentation"]
    skeletons = load_skeletons(tables.skeletons) if tables.skeletons else None
    truth = GroundTruth(volumes.get("labels"), volumes.get("mask"), skeletons, border)
    if truth.labels is None and skeletons is None:
        raise BadInput("no ground truth given; expected labels, skeletons or both")
    if tables.lookup:
        check_lookup(tables.lookup, segmentation, tables.edges)
    scored_roi = truth.common_roi(segmentation, parse_roi(roi, truth.labels or segmentation) if roi else None)
    raw, affinities = volumes.get("raw"), volumes.get("affs")
    common_roi_of_pictures(
        scored_roi, segmentation, raw, affinities
    )  # raises BadInput now rather than after the comparison
    return _Inputs(segmentation, truth, raw, affinities, scored_roi)


def _paths(arrays: Mapping[str, Path], tables: Tables) -> dict[str, Path]:
    """Return the paths of all inputs, by name."""
    paths = {**arrays, "lookup": tables.lookup, "edges": tables.edges, "skeletons": tables.skeletons}
    return {name: path for name, path in paths.items() if path}


def viewer_command(viewer: str, out: Path, arrays: Mapping[str, Path]) -> list[str]:
    """Return the words of the command of a viewer that shows results and arrays at a position, which follows them."""
    shown = [word for name in _SHOWN if name in arrays for word in (f"--{name}", str(arrays[name]))]
    return ["python", viewer, str(out), *shown, "--position"]
