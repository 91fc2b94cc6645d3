#!/usr/bin/env python
"""Write labels into volumes whose annotators drew membranes: the cells are what lies between them."""

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

DATASETS = Path(__file__).resolve().parent / "datasets"


@stage(
    example="""
python 01_data/create_labels.py data/vnc/training/stack1.zarr --dataset vnc
python 01_data/create_labels.py /lab/mine.zarr --membranes volumes/labels/membranes --smallest 50
"""
)
@click.argument("volumes", metavar="VOLUME.zarr ...", nargs=-1, required=True, type=options.FILE)
@click.option("-d", "--dataset", help="Name or yaml file of a data set, by whose key labels they are made.")
@options.labels_rule
@options.stated_grid("volumes")
def main(volumes: tuple[Path, ...], dataset: str | None, **chosen: Any) -> None:
    """Write volumes/labels/neuron_ids into each VOLUME.zarr: the connected components between its membranes.

    VOLUME.zarr.labels.json, beside the volume, records the rule and the membranes. Labels of another origin are never
    replaced.
    """
    from emsuite.config.dataset import load_dataset
    from emsuite.data.membranes import LabelsRule, create_labels
    from emsuite.io.volume import LABELS

    rule = LabelsRule(**chosen)
    if dataset and rule != LabelsRule():
        raise click.UsageError("--dataset says how labels are made; expected it, or the other options")
    if dataset:
        rule = load_dataset(dataset, DATASETS).labels or rule
    for volume in volumes:
        is_new = create_labels(volume, rule)
        click.echo(f"{volume / LABELS}: {'written' if is_new else 'already there'}")


if __name__ == "__main__":
    main()
