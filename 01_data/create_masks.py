#!/usr/bin/env python
"""Write the labels masks of volumes, by the rule of their data set."""

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

DATASETS = Path(__file__).resolve().parent / "datasets"


@stage(
    example="""
python 01_data/create_masks.py data/funke/fib25/training/*.zarr
python 01_data/create_masks.py /lab/mine.zarr --dataset mine.yaml
"""
)
@click.argument("volumes", metavar="VOLUME.zarr ...", nargs=-1, required=True, type=options.FILE)
@click.option("-d", "--dataset", help="Name or yaml file of the data set. [default: from the volume's path]")
@options.stated_grid("volumes")
def main(volumes: tuple[Path, ...], dataset: str | None) -> None:
    """Write volumes/labels/labels_mask into each VOLUME.zarr that has none yet.

    VOLUME.zarr.masks.json, beside the volume, records the rule and the labels. HDF5 files are read in place, and get no
    mask: training and scoring leave out the voxels that are no ground truth as they read the labels.
    """
    from emsuite.config.dataset import dataset_of, load_dataset
    from emsuite.data.labels_mask import create_mask, is_known_without_mask
    from emsuite.io.volume import LABELS, MASK, name_of_format, open_volume

    for volume in volumes:
        data = load_dataset(dataset, DATASETS) if dataset else dataset_of(volume, DATASETS)
        if name_of_format(volume) == "hdf5" and is_known_without_mask(data.mask):
            open_volume(volume / LABELS)
            click.echo(f"{volume}: needs no mask; {list(data.mask.unlabelled)} are left out as labels are read")
            continue
        is_new = create_mask(volume, data.mask)
        click.echo(f"{volume / MASK}: {'written' if is_new else 'already there'}")


if __name__ == "__main__":
    main()
