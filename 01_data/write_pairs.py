#!/usr/bin/env python
"""Write images and their labels, on the region of both, as a volume to train on."""

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
python 01_data/write_pairs.py transferred.zarr/image a.zarr/volumes/labels/neuron_ids mine/pairs.zarr
python 01_data/write_pairs.py transferred.zarr/image a.zarr/volumes/labels/neuron_ids mine/pairs.h5 --roi 0:800,:,:
python 01_data/write_pairs.py transferred.zarr/image a.zarr/volumes/labels/neuron_ids mine/pairs --main
"""
)
@click.argument("image", type=options.FILE)
@click.argument("labels", type=options.FILE)
@click.argument("to", metavar="TO", type=options.FILE)
@click.option("--roi", metavar="Z0:Z1,Y0:Y1,X0:X1", help="The region to write, nm. [default: all that both cover]")
@click.option(
    "--main", "as_main", is_flag=True, help="Write TO/images.h5 and TO/labels.h5, each with the dataset main."
)
@options.stated_grid("image", "labels")
@options.workers
def main(image: Path, labels: Path, to: Path, roi: str | None, as_main: bool, workers: Any) -> None:
    """Write the arrays IMAGE and LABELS as volumes/raw and volumes/labels/neuron_ids of TO, a .zarr or .h5 container.

    The same command continues a stopped run, and keeps what was made from the same arrays.
    """
    from emsuite.data.derived.pairs import write_pairs

    region = write_pairs(image, labels, to, roi=roi, as_main=as_main, workers=workers)
    click.echo(f"{to}: images and labels of {region} nm")


if __name__ == "__main__":
    main()
