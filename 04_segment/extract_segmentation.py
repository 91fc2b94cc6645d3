#!/usr/bin/env python
"""Write the segmentation at one threshold: fragments relabelled by their lookup table."""

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
python 04_segment/extract_segmentation.py --fragments results/fragments.zarr/fragments --lookup results/lookup \\
    --threshold 0.42 --out results/segmentation.zarr
python 04_segment/extract_segmentation.py --fragments results/fragments.zarr/fragments --lookup results/lookup \\
    --scores results/scores.json --out results/segmentation.zarr
"""
)
@click.option("--fragments", type=options.FILE, metavar="ARRAY", required=True, help="From extract_fragments.py.")
@click.option("--lookup", type=options.FILE, metavar="FOLDER", required=True, help="From find_segments.py.")
@click.option("--threshold", type=float, help="A threshold of the lookup tables.")
@click.option("--scores", type=options.FILE, metavar="JSON", help="Take the best threshold, from evaluate.py.")
@click.option("--out", type=options.FILE, metavar="ZARR", required=True, help="Zarr for the array 'segmentation'.")
@options.workers
def main(fragments: Path, lookup: Path, threshold: float | None, scores: Path | None, out: Path, workers: Any) -> None:
    """Write OUT/segmentation, with the id of its segment in each voxel. The same command continues a stopped run."""
    if (threshold is None) == (scores is None):
        raise click.UsageError("expected either --threshold or --scores")
    from emsuite.segmentation.extract_segmentation import best_threshold, extract_segmentation

    chosen = threshold if scores is None else best_threshold(scores, lookup)
    extract_segmentation(fragments, lookup, chosen, out, workers=workers, scores=scores)
    click.echo(f"segmentation at threshold {chosen}; {out}")


if __name__ == "__main__":
    main()
