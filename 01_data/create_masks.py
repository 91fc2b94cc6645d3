#!/usr/bin/env python
"""Write the labels mask of volumes, by the rule of their data set."""

from pathlib import Path

import click

from emsuite.cli import options
from emsuite.cli.command import stage
from emsuite.config.dataset import dataset_of, load_dataset
from emsuite.data.labels_mask import create_mask
from emsuite.io.volume import MASK

DATASETS = Path(__file__).resolve().parent / "datasets"


@stage(
    example="""
python 01_data/create_masks.py data/funke/fib25/training/*.zarr
python 01_data/create_masks.py /lab/mine.zarr --dataset mine.yaml
"""
)
@click.argument("volumes", metavar="VOLUME.zarr ...", nargs=-1, required=True, type=options.FILE)
@click.option("-d", "--dataset", help="Name or yaml file of the data set. [default: as the volume's path tells]")
def main(volumes: tuple[Path, ...], dataset: str | None) -> None:
    """Write volumes/labels/labels_mask into each VOLUME.zarr, where it is not there already.

    A record of it, VOLUME.zarr.masks.json, is written beside the volume.
    """
    for volume in volumes:
        data = load_dataset(dataset, DATASETS) if dataset else dataset_of(volume, DATASETS)
        made = create_mask(volume, data.mask)
        click.echo(f"{volume / MASK}: {'written' if made else 'already there'}")


if __name__ == "__main__":
    main()
