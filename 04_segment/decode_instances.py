#!/usr/bin/env python
"""Decode instances from predicted foreground, contours and distances: a seeded watershed."""

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
python 04_segment/decode_instances.py --foreground prediction.zarr/mask --contour prediction.zarr/contour \\
    --out segmentation.zarr
python 04_segment/decode_instances.py --foreground prediction.zarr/mask --contour prediction.zarr/contour \\
    --distance prediction.zarr/distance --decoding cysgan --block-size 2048,2048,2048 --out segmentation.zarr
"""
)
@click.option("--foreground", type=options.FILE, metavar="ARRAY", required=True, help="Foreground, uint8.")
@click.option("--contour", type=options.FILE, metavar="ARRAY", required=True, help="Contours, uint8.")
@click.option("--distance", type=options.FILE, metavar="ARRAY", help="Distances, uint8; 0 to 255 stands for -1 to 1.")
@click.option("--out", type=options.FILE, metavar="ZARR", required=True, help="Zarr for the array 'segmentation'.")
@click.option("--block-size", type=options.LENGTHS, metavar="NM", help="Block of a worker. [default: the whole volume]")
@options.stated_grid("foreground", "contour", "distance")
@options.instance_settings
@options.workers
def main(
    foreground: Path,
    contour: Path,
    distance: Path | None,
    out: Path,
    block_size: tuple[int, ...] | None,
    workers: Any,
    **chosen: Any,
) -> None:
    """Write OUT/segmentation, with the id of its instance in each voxel. The same command continues a stopped run.

    Seeds are high foreground without contour; they flood the foreground.
    """
    from emsuite.segmentation.instances.decode_instances import decode_instances
    from emsuite.segmentation.instances.settings import InstanceSettings

    paths = {"foreground": foreground, "contour": contour} | ({"distance": distance} if distance else {})
    number = decode_instances(paths, out, InstanceSettings(**chosen), block_size=block_size, workers=workers)
    click.echo(f"{number} instances; {out}")


if __name__ == "__main__":
    main()
