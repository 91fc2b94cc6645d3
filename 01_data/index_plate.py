#!/usr/bin/env python
"""Write a folder of frames, one file per channel, slice, time and position, as one plate of OME-Zarr."""

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
python 01_data/index_plate.py frames/ mine/plate.zarr
python 01_data/index_plate.py frames/ mine/plate.zarr --order pctz --channel-names phase,nuclei,membrane
python 01_data/index_plate.py frames/ mine/plate.zarr --name-parser sms --pixel-size 500,108.3,108.3
"""
)
@click.argument("frames", type=options.FILE)
@click.argument("out", type=options.FILE, metavar="PLATE.zarr")
@click.option("--order", metavar="LETTERS", help="The integers in a name, by the letters c, z, t, p. [default: cztp]")
@click.option(
    "--name-parser",
    type=click.Choice(["order", "sms"]),
    default="order",
    help="sms reads img_<channel name>_t###_p###_z###.",
)
@click.option("--expression", metavar="REGEX", help="Names by a regular expression with groups (?P<c>...), z, t, p.")
@click.option(
    "--channel-names",
    metavar="A,B,...",
    help="Names of the channels 0, 1, ..., or the order of those that files have. [default: as in the files]",
)
@click.option("--pixel-size", type=options.LENGTHS, metavar="Z,Y,X", help="nm. [default: unknown]")
@options.threads
def main(
    frames: Path, out: Path, order: str | None, name_parser: str, expression: str | None, channel_names: str | None,
    pixel_size: tuple[float, float, float] | None, workers: int,
) -> None:  # fmt: skip
    """Write FRAMES, PNG, TIFF, JPEG or NPY, as PLATE.zarr, and the table PLATE.frames_meta.csv beside it.

    A folder with a frames_meta.csv is read by this table, unless an option says how names are read. The same command
    continues a stopped run.
    """
    from emsuite.plates.frame_names import parser
    from emsuite.plates.index_plate import index_plate

    if sum((order is not None, name_parser != "order", expression is not None)) > 1:
        raise click.UsageError("--order, --name-parser sms and --expression exclude each other")
    said = order or expression or name_parser != "order"
    parse = parser(name_parser, order or "cztp", expression) if said else None
    names = channel_names.split(",") if channel_names else []
    plate = index_plate(frames, out, parse, channel_names=names, voxel_size_nm=pixel_size, workers=workers)
    click.echo(f"{out}: {len(plate.positions)} positions, channels {', '.join(plate.channels)}")


if __name__ == "__main__":
    main()
