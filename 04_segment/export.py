#!/usr/bin/env python
"""Export a segmentation for other programs: a volume with meshes and skeletons for neuroglancer, or a table."""

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
python 04_segment/export.py --segmentation results/segmentation.zarr/segmentation --out mine/cube.precomputed
python 04_segment/export.py --segmentation results/segmentation.zarr/segmentation --format csv \\
    --skeletons --out mine/segments.csv
"""
)
@click.option("--segmentation", type=options.FILE, metavar="ARRAY", required=True, help="Ids of segments, 0 is none.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["precomputed", "ome-zarr", "n5", "hdf5", "tiff", "csv"]),
    default="precomputed",
    help="precomputed: voxels, meshes, skeletons and the table; csv: the table alone; others: voxels alone.",
)
@click.option("--level", type=click.IntRange(0, 30), default=0, help="Of a pyramid: the level to export, 0 the finest.")
@click.option("--levels-of-detail", type=click.IntRange(0, 8), default=3, help="Of meshes; 0: no meshes, no surface.")
@click.option("--skeletons", is_flag=True, help="Make skeletons too, and measure their cable length.")
@click.option("--roi", metavar="Z0:Z1,Y0:Y1,X0:X1", help="The region to export, nm. [default: all]")
@click.option("--block-size", type=options.LENGTHS, help="nm, z,y,x. [default: about 128 voxels along each axis]")
@click.option(
    "--out", type=options.FILE, required=True, help="As x.precomputed, x.zarr/NAME, x.n5/NAME, x.h5/NAME, x.tif, x.csv."
)
@options.stated_grid("segmentation")
@options.workers
def main(
    segmentation: Path, kind: str, out: Path, level: int, levels_of_detail: int, skeletons: bool, **others: Any
) -> None:
    """Write a segmentation in another format. The same command continues a stopped run."""
    from emsuite.export.export import Shapes
    from emsuite.export.formats import export
    from emsuite.io.levels import level_path

    written = export(level_path(segmentation, level), out, kind, shapes=Shapes(levels_of_detail, skeletons), **others)
    click.echo(f"{written}; {out}")


if __name__ == "__main__":
    main()
