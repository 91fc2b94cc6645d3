#!/usr/bin/env python
"""Score a segmentation against ground truth, over all thresholds of a sweep: scores.csv, scores.json, report.html."""

import logging
from pathlib import Path

import click

from emsuite.command import stage

FILE = click.Path(path_type=Path)


@stage(
    example="""
python 04_segment/evaluate.py --fragments fragments.zarr/fragments --lookup lookup --out scores \\
    --labels trvol-250-2.zarr/volumes/labels/neuron_ids --raw trvol-250-2.zarr/volumes/raw
python 04_segment/evaluate.py --segmentation other.zarr/segmentation --out scores \\
    --labels trvol-250-2.zarr/volumes/labels/neuron_ids
"""
)
@click.option("--fragments", type=FILE, metavar="ARRAY", help="Fragments that --lookup merges.")
@click.option("--lookup", type=FILE, metavar="FOLDER", help="Lookup tables of find_segments.py.")
@click.option("--segmentation", type=FILE, metavar="ARRAY", help="A segmentation to score as it is, instead.")
@click.option("--labels", type=FILE, metavar="ARRAY", required=True, help="Ground truth; label 0 is left out.")
@click.option("--mask", type=FILE, metavar="ARRAY", help="Leave out what is 0 here.")
@click.option("--skeletons", type=FILE, metavar="FOLDER", help="Skeletons (Parquet or SWC), for run lengths.")
@click.option("--roi", metavar="NM", help="Score z0:z1,y0:y1,x0:x1 alone.", show_default="all that is covered")
@click.option("--raw", type=FILE, metavar="ARRAY", help="The raw volume, for the report's pictures.")
@click.option("--affs", type=FILE, metavar="ARRAY", help="Affinities, for the report's pictures.")
@click.option("--timings", type=FILE, multiple=True, help="A manifest.json or benchmark .tsv of an earlier stage.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write to.")
def main(
    lookup: Path | None,
    skeletons: Path | None,
    roi: str | None,
    timings: tuple[Path, ...],
    out: Path,
    **arrays: Path | None,
) -> None:
    """Score fragments under every lookup table, or one segmentation, against ground truth.

    VOI in bits, adapted Rand, and expected run lengths where there are skeletons. Writes scores.csv (a row per
    threshold), report.html, and scores.json (the threshold with the smallest VOI sum).
    """
    if (arrays["fragments"] is None) == (arrays["segmentation"] is None) or (lookup is None) != (
        arrays["fragments"] is None
    ):
        raise click.UsageError("expected either --fragments with --lookup, or --segmentation alone")
    from emsuite.evaluate import evaluate, write_scores
    from emsuite.provenance import provenance
    from emsuite.report import write_report
    from emsuite.sections import sections
    from emsuite.skeletons import load_skeletons
    from emsuite.timings import read_timings
    from emsuite.truth import Truth
    from emsuite.volume import format_roi, open_volume, parse_roi, split_path

    opened = {name: open_volume(path) for name, path in arrays.items() if path is not None}
    stages = read_timings(timings)
    segmentation = opened.get("fragments") or opened["segmentation"]
    truth = Truth(opened["labels"], opened.get("mask"), load_skeletons(skeletons) if skeletons else None)
    evaluation = evaluate(segmentation, truth, lookup, parse_roi(roi, truth.labels) if roi else None)
    pictures = sections(evaluation, truth, segmentation, opened.get("raw"), opened.get("affs"))
    inputs = {name: path for name, path in (arrays | {"lookup": lookup, "skeletons": skeletons}).items() if path}
    record = provenance({"roi": format_roi(evaluation.roi)}, inputs)
    title = f"Segmentation of {split_path(truth.labels.path)[0].stem}"
    write_report(out / "report.html", evaluation, pictures, stages, record, title)
    write_scores(out, evaluation, record)
    best = evaluation.best
    logging.getLogger("emsuite").info(
        f"VOI split {best.voi_split:.3f}, merge {best.voi_merge:.3f}, sum {best.voi_sum:.3f} bits"
        + (f" at threshold {best.threshold}" if lookup else "")
        + f"; {out / 'report.html'}"
    )


if __name__ == "__main__":
    main()
