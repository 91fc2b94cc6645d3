#!/usr/bin/env python
"""Copy an array into another format, type or layout, and check each block of the copy."""

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

TYPES = ["bool", *(f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64))]
TYPES += ["float16", "float32", "float64"]


@stage(
    example="""
python 01_data/convert.py cremi.hdf/volumes/raw mine/cremi.zarr/volumes/raw
python 01_data/convert.py plate.ome.zarr mine/plate.zarr/volumes/raw --level 1 --roi 0:4000,:,: --levels 3
"""
)
@click.argument("source", metavar="FROM", type=options.FILE)
@click.argument("to", metavar="TO", type=options.FILE)
@click.option("--level", type=click.IntRange(0, 30), default=0, help="Of a pyramid: the level to copy, 0 the finest.")
@click.option("--roi", metavar="Z0:Z1,Y0:Y1,X0:X1", help="The region to copy, nm. [default: all]")
@click.option("--dtype", type=click.Choice(TYPES), help="Another type, if it holds the value of each voxel.")
@click.option("--chunks", type=options.VOXELS, help="Voxels that are compressed together. [default: 64,64,64]")
@click.option("--shards", type=options.VOXELS, help="Voxels in one file, multiples of --chunks. [default: one chunk]")
@click.option("--zarr-format", type=click.Choice(["2", "3"]), default="3", help="The version of a new zarr.")
@click.option("--levels", type=click.IntRange(1, 30), help="Write that many coarser levels, as make_pyramid.py does.")
@options.stated_grid("source")
@options.workers
def main(source: Path, to: Path, level: int, roi: str | None, levels: int | None, workers: Any, **layout: Any) -> None:
    """Copy the array FROM to the array TO, as VOLUME.zarr/volumes/raw, VOLUME.h5/volumes/raw or VOLUME.tif.

    The same command continues a stopped run. HDF5 and TIFF are written by one process, and a stopped run begins again.
    """
    from emsuite.data.convert import Layout, convert
    from emsuite.data.pyramid import check_holds_levels, make_pyramid
    from emsuite.io.levels import level_path

    if levels:
        check_holds_levels(to)
    stored = Layout(**layout | {"zarr_format": int(layout["zarr_format"])})  # type: ignore[arg-type]
    digest = convert(level_path(source, level), to, roi=roi, layout=stored, workers=workers)
    if levels:
        make_pyramid(to, levels=levels, workers=workers)
    click.echo(f"copied and compared, digest {digest[:16]}; {to}")


if __name__ == "__main__":
    main()
