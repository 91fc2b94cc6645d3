#!/usr/bin/env python
"""Score a segmentation against ground truth, at all thresholds of a sweep: scores.csv, scores.json, report.html."""

import os
from pathlib import Path
from typing import Any

try:
    import click

    from emsuite.cli import options
    from emsuite.cli.command import stage
except ModuleNotFoundError as error:
    if "EMSUITE_IMAGE" in os.environ:  # the image tells more
        raise
    raise SystemExit(f"error: {error}; expected the Python of .venv: . .venv/bin/activate, see README.md") from None


@stage(
    example="""
python 04_segment/evaluate.py --fragments fragments.zarr/fragments --lookup lookup --out scores \\
    --labels trvol-250-2.zarr/volumes/labels/neuron_ids --raw trvol-250-2.zarr/volumes/raw
python 04_segment/evaluate.py --fragments fragments.zarr/fragments --lookup lookup --out scores \\
    --skeletons volume.skeletons --edges graph/edges --workers 16
python 04_segment/evaluate.py --segmentation seg.zarr/seg --labels cremi.hdf/volumes/labels/neuron_ids --out scores
"""
)
@click.option("--fragments", type=options.FILE, metavar="ARRAY", help="Fragments, to be merged by --lookup.")
@click.option("--lookup", type=options.FILE, metavar="FOLDER", help="From find_segments.py.")
@click.option("--segmentation", type=options.FILE, metavar="ARRAY", help="Score this array, instead of fragments.")
@click.option("--labels", type=options.FILE, metavar="ARRAY", help="Ground truth; 0 is not scored.")
@click.option("--mask", type=options.FILE, metavar="ARRAY", help="Voxels where this array is 0 are not scored.")
@click.option("-d", "--dataset", help="Data set by whose rule --mask must have been written. [default: any]")
@click.option("--skeletons", type=options.FILE, metavar="FOLDER", help="Skeletons (Parquet or SWC), to score by.")
@click.option("--edges", type=options.FILE, metavar="FOLDER", help="Edges from agglomerate.py, for the min-cut metric.")
@click.option("--edits", type=click.Choice(["best", "all"]), default="best", help="Thresholds whose edits are counted.")
@click.option("--roi", metavar="NM", help="Score only z0:z1,y0:y1,x0:x1.", show_default="the whole overlap")
@click.option("--raw", type=options.FILE, metavar="ARRAY", help="The raw volume, for the report's pictures.")
@click.option("--affs", type=options.FILE, metavar="ARRAY", help="Affinities, for the report's pictures.")
@options.stated_grid("fragments", "segmentation", "labels", "mask", "raw", "affs")
@click.option("--timings", type=options.FILE, multiple=True, help="A stage's manifest.json or benchmark .tsv.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write to.")
@click.option("--block-size", type=options.LENGTHS, metavar="NM", help="Block of a worker.  [default: 256 voxels]")
@options.scoring_settings
@options.workers
def main(
    lookup: Path | None,
    dataset: str | None,
    skeletons: Path | None,
    edges: Path | None,
    edits: str,
    roi: str | None,
    timings: tuple[Path, ...],
    out: Path,
    block_size: tuple[int, ...] | None,
    workers: Any,
    **arrays: Any,
) -> None:
    """Score fragments at every threshold of the lookup tables, or one segmentation, against ground truth.

    Writes scores.csv (a row for each threshold), errors.csv, report.html and scores.json (the best threshold): VOI,
    Rand and CREMI's score of voxels, or of skeleton nodes; run lengths. The same command continues a stopped run.
    """
    given = [arrays["fragments"] is not None, lookup is not None, arrays["segmentation"] is not None]
    if given not in ([True, True, False], [False, False, True]):
        raise click.UsageError("expected either --fragments with --lookup, or --segmentation alone")
    if edges is not None and None in (skeletons, lookup):
        raise click.UsageError("--edges needs --skeletons, by which edits are counted, and --lookup")
    if arrays["labels"] is None and skeletons is None:
        raise click.UsageError("expected ground truth: --labels, --skeletons or both")
    from emsuite.config.dataset import check_mask
    from emsuite.evaluation.evaluate import Tables, evaluate, viewer_command
    from emsuite.segmentation.settings import ScoringSettings

    check_mask(arrays["mask"], dataset, Path(__file__).resolve().parents[1] / "01_data/datasets")
    scoring = ScoringSettings(**{key: arrays.pop(key) for key in ScoringSettings.model_fields})
    paths = {name: path for name, path in arrays.items() if path is not None}
    more = {"block_size": block_size, "workers": workers, "scoring": scoring, "every_edit": edits == "all"}
    tables = Tables(lookup, edges, skeletons, timings)
    done = evaluate(paths, tables, out, roi=roi, viewer=viewer_command("04_segment/view.py", out, paths), **more)
    click.echo(f"{done.headline}; {out / 'report.html'}")


if __name__ == "__main__":
    main()
