#!/usr/bin/env python
"""Find the edges of the region adjacency graph: fragments that touch, and the thresholds at which they merge."""

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
python 04_segment/agglomerate.py --affs prediction.zarr/affs --fragments results/fragments.zarr/fragments \\
    --out results/graph/edges --merge-function hist_quant_75
"""
)
@click.option("--affs", type=options.FILE, metavar="ARRAY", required=True, help="Affinities, as for the fragments.")
@click.option("--fragments", type=options.FILE, metavar="ARRAY", required=True, help="From extract_fragments.py.")
@click.option("--out", type=options.FILE, required=True, help="Folder for the tables of edges.")
@options.stated_grid("affs")
@options.agglomeration_settings
@options.context_settings
@options.workers
def main(
    affs: Path,
    fragments: Path,
    out: Path,
    merge_function: str,
    segments_in_sections: bool,
    context: tuple[int, ...] | None,
    workers: Any,
) -> None:
    """Score each contact of two fragments by the threshold at which agglomeration (waterz) merges them.

    Works in the blocks of the fragments and writes a table for each block to OUT. The same command continues a stopped
    run.
    """
    from emsuite.common.process import silent_stdout
    from emsuite.segmentation.agglomerate import agglomerate_fragments

    more = {"in_sections": segments_in_sections, "context": context, "workers": workers}
    with silent_stdout():  # waterz prints its progress
        number = agglomerate_fragments(affs, fragments, out, merge_function, **more)
    click.echo(f"{number} edges; {out}")


if __name__ == "__main__":
    main()
