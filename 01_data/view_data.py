#!/usr/bin/env python
"""Look at volumes in neuroglancer: raw, labels and masks."""

from pathlib import Path

import click

from emsuite.cli import options
from emsuite.cli.command import stage


@stage(
    example="""
python 01_data/view_data.py -d data/funke/fib25/training/trvol-250-1.zarr
"""
)
@click.option(
    "-d",
    "--data",
    type=options.FILE,
    multiple=True,
    required=True,
    metavar="VOLUME.zarr",
    help="Volume to show, zarr or HDF5; may be repeated.",
)
@options.bind
def main(data: tuple[Path, ...], bind: str) -> None:
    """Show every array of the volumes as a layer, in nm. Names and types decide between image and segmentation.

    Prints the address to open in a browser and serves until Ctrl-C.
    """
    from emsuite.visualization.contents import data_layers
    from emsuite.visualization.viewer import serve

    serve([data_layers(data)], bind)


if __name__ == "__main__":
    main()
