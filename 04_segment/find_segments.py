#!/usr/bin/env python
"""Find the segments at every threshold of a sweep: lookup tables from fragments to segments."""

import os
from pathlib import Path

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
python 04_segment/find_segments.py --nodes results/graph/nodes --edges results/graph/edges --out results/lookup
python 04_segment/find_segments.py --nodes results/graph/nodes --edges results/graph/edges --out results/lookup \\
    --thresholds 0.2,0.6,0.01
"""
)
@click.option("--nodes", type=options.FILE, metavar="FOLDER", required=True, help="From extract_fragments.py.")
@click.option("--edges", type=options.FILE, metavar="FOLDER", required=True, help="From agglomerate.py.")
@click.option("--out", type=options.FILE, required=True, help="Folder for the lookup tables.")
@options.sweep_settings
def main(nodes: Path, edges: Path, out: Path, thresholds: str) -> None:
    """Find, for each threshold, the connected components of the edges that score at most this threshold.

    One pass over the edges serves all thresholds. Writes OUT/segments.parquet, with a row for each fragment and a
    column of segments for each threshold.
    """
    from emsuite.segmentation.find_segments import find_segments
    from emsuite.segmentation.settings import parse_thresholds

    counts = find_segments(nodes, edges, out, parse_thresholds(thresholds))
    first, last = min(counts), max(counts)
    click.echo(f"{counts[first]} segments at threshold {first}, {counts[last]} at {last}; {out}")


if __name__ == "__main__":
    main()
