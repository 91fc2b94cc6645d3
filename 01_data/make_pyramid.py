#!/usr/bin/env python
"""Write coarser levels of an array beside it, for viewers of OME-NGFF."""

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
python 01_data/make_pyramid.py mine/cube.zarr/volumes/raw
python 01_data/make_pyramid.py results/segmentation.zarr/segmentation --kind mode --levels 3
"""
)
@click.argument("array", type=options.FILE, metavar="ARRAY")
@click.option("--levels", type=click.IntRange(1, 30), help="Coarser levels. [default: until one is a single chunk]")
@click.option(
    "--kind",
    type=click.Choice(["mean", "mode"]),
    help="mean for images; mode for labels: the most frequent, of several the smallest. [default: mode for bool and "
    "integers of 32 and 64 bits]",
)
@options.workers
def main(array: Path, levels: int | None, kind: Any, workers: Any) -> None:
    """Write ARRAY_levels/1, 2, ... and list them in the metadata. The same command continues a stopped run."""
    from emsuite.data.pyramid import make_pyramid

    written = make_pyramid(array, levels=levels, kind=kind, workers=workers)
    click.echo(f"{len(written)} levels of {array}; {written[0].parent}")


if __name__ == "__main__":
    main()
