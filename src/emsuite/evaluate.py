"""Score a segmentation, or fragments under every lookup table of a sweep, against ground truth.

    fragments --+-- blocks --> contingency table, nodes' fragments --- lookup table of each threshold --> scores
    truth ------+

Voxels are read once; what a threshold costs depends on the number of fragments alone.
"""

import csv
import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from funlib.geometry import Roi

from emsuite.contingency import Contingency, apply_lookup
from emsuite.errors import BadInput
from emsuite.files import write_json, write_text
from emsuite.output import manifest_path, read_json
from emsuite.progress import progress
from emsuite.run_length import expected_run_length
from emsuite.scores import adapted_rand_of, variation_of_information_of
from emsuite.segments import lookup_manifest, read_lookup, read_thresholds
from emsuite.skeletons import Skeletons
from emsuite.truth import Truth
from emsuite.volume import Volume, format_roi, split_path


@dataclass(frozen=True)
class Scores:
    """One row of scores.csv: bits, shares of 1, nm (`erl`) and numbers; None where there are no skeletons."""

    threshold: float | None
    voi_split: float
    voi_merge: float
    voi_sum: float
    adapted_rand_error: float
    precision: float
    recall: float
    erl: float | None
    nerl: float | None
    splits: int | None
    merges: int | None
    segments: int


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
        return voxels if self.lookup is None else apply_lookup(voxels, *self.lookup)


def evaluate(segmentation: Volume, truth: Truth, lookup: Path | None = None, roi: Roi | None = None) -> Evaluation:
    """Score `segmentation` (Z, Y, X; fragments, if `lookup` holds their lookup tables) over what it and `truth` cover.

    `roi` (nm) is scored instead, if given. The best threshold has the smallest VOI sum, the lowest such one among
    equals. Raises BadInput for arrays that do not fit each other and for tables of other fragments.
    """
    thresholds = [] if lookup is None else _thresholds(lookup, segmentation)
    roi = truth.common_roi(segmentation, roi)
    table, skeletons, nodes = truth.compare(segmentation, roi)
    if lookup is None:
        row = _score(None, table, skeletons, nodes)
        return Evaluation([row], row, roi, table, None)
    rows = []
    for threshold in progress(thresholds, what="thresholds"):
        merged, mapped, _ = _agglomerated(lookup, threshold, table, nodes)
        rows.append(_score(threshold, merged, skeletons, mapped))
    best = min(rows, key=lambda row: row.voi_sum)
    assert best.threshold is not None
    merged, _, tables = _agglomerated(lookup, best.threshold, table, nodes)
    return Evaluation(rows, best, roi, merged, tables)


def write_scores(folder: Path, evaluation: Evaluation, provenance: dict[str, Any]) -> None:
    """Write `scores.csv` (a row per threshold) and, last, `scores.json` (the best one, and the provenance)."""
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Scores)], lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(row) for row in evaluation.rows)
    write_text(folder / "scores.csv", text.getvalue())
    best = {"threshold": evaluation.best.threshold, "best": asdict(evaluation.best), "roi": format_roi(evaluation.roi)}
    write_json(folder / "scores.json", best | {"provenance": provenance})


def _thresholds(lookup: Path, fragments: Volume) -> list[float]:
    # fragments of another run may carry the same ids: only their digest tells them apart
    manifest = read_json(manifest_path(split_path(fragments.path)[0])) or {}
    digest = manifest.get("digest")
    if digest is not None and digest != lookup_manifest(lookup).get("fragments_digest"):
        raise BadInput(f"{lookup}: was made from other fragments than {fragments.path}; find their segments first")
    return sorted(read_thresholds(lookup))


def _agglomerated(
    lookup: Path, threshold: float, table: Contingency, nodes: np.ndarray
) -> tuple[Contingency, np.ndarray, Lookup]:
    tables = Lookup(*read_lookup(lookup, threshold))
    try:
        return table.map(*tables), apply_lookup(nodes, *tables), tables
    except BadInput as error:
        raise BadInput(f"{lookup}, threshold {threshold}: {error}") from None


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
        segments=int(np.count_nonzero(table.by_segment.ids)),
        **run,
    )
