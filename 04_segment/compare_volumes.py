#!/usr/bin/env python
"""Compare the grey values of volumes with those of an original: RMSE and mean absolute error."""

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
python 04_segment/compare_volumes.py a.zarr/volumes/raw degraded.zarr/volumes/raw restored.zarr/image
python 04_segment/compare_volumes.py a.zarr/volumes/raw restored.zarr/image --roi 1040:1280,:,: --out rmse.json
"""
)
@click.argument("target", type=options.FILE)
@click.argument("volumes", metavar="VOLUME ...", nargs=-1, required=True, type=options.FILE)
@click.option("--roi", metavar="Z0:Z1,Y0:Y1,X0:X1", help="The region to compare, nm. [default: all that all cover]")
@click.option("--out", type=options.FILE, help="A json file for the result.")
@options.stated_grid("target", "volumes")
def main(target: Path, volumes: tuple[Path, ...], roi: str | None, out: Path | None) -> None:
    """Tell how far each VOLUME lies from the array TARGET, in shares of the range of grey values.

    With a degraded volume first and a restored one behind it, these are the errors before and after.
    """
    from emsuite.evaluation.images.volume_difference import differences, write_differences

    found, _ = write_differences(out, target, volumes, roi) if out else differences(target, volumes, roi)
    for one in found:
        click.echo(f"{one.volume}: RMSE {one.rmse:.4f}, mean absolute error {one.mae:.4f}, {one.voxels} voxels")


if __name__ == "__main__":
    main()
