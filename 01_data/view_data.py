#!/usr/bin/env python
"""Show volumes in neuroglancer: raw, labels and masks."""

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
    help="A volume to show, zarr or HDF5. The option can be repeated.",
)
@options.stated_grid("data")
@options.bind
def main(data: tuple[Path, ...], bind: str) -> None:
    """Show every array of the given volumes at its position in nm.

    Attributes, name and type of an array decide how it is drawn. Prints the address to open in a browser and serves
    until Ctrl-C.
    """
    from emsuite.visualization.contents import data_layers
    from emsuite.visualization.viewer import serve

    serve([data_layers(data)], bind)


if __name__ == "__main__":
    main()
