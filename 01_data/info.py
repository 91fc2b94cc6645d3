#!/usr/bin/env python
"""Tell what lies at a path: arrays, shapes, types, voxel sizes, ranges of values, chunks."""

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
python 01_data/info.py cube.tif
python 01_data/info.py cube.h5/volumes/raw sections/ --voxel-size 40,4.6,4.6
python 01_data/info.py data/funke/fib25/training --no-values --json
"""
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=options.FILE)
@options.stated_grid("paths")
@click.option("--values/--no-values", default=True, help="Read a sample of each array, for the range of its values.")
@click.option("--json", "as_json", is_flag=True, help="Print a list for programs.")
def main(paths: tuple[Path, ...], values: bool, as_json: bool) -> None:
    """Tell what each PATH holds: an array, a container of any format, a folder of images, or a folder above them.

    The sample is the whole array up to 16 million voxels, and blocks at 27 places of a larger one.
    """
    import json

    from emsuite.io.description import arrays_at, describe
    from emsuite.io.description_text import as_dictionary, as_text

    arrays = dict.fromkeys(array for path in paths for array in arrays_at(path))
    told = []
    for array in arrays:
        told.append(describe(array, values))
        if not as_json:
            click.echo(as_text(told[-1]))
    if as_json:
        click.echo(json.dumps([as_dictionary(each) for each in told], indent=2))


if __name__ == "__main__":
    main()
