#!/usr/bin/env python
"""Write a degraded copy of a volume: a second look of the same tissue, or a known blur with holes."""

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
python 01_data/degrade.py data/funke/fib25/training/trvol-250-1.zarr mine/second_look.zarr
python 01_data/degrade.py a.zarr b.zarr --look box_and_holes --set per_section=true --set seed=3
python 01_data/degrade.py a.zarr b.zarr --set gamma=1.5 --set inverted=false --roi 0:800,:,: --no-labels
"""
)
@click.argument("source", metavar="FROM.zarr", type=options.FILE)
@click.argument("to", metavar="TO", type=options.FILE)
@click.option(
    "--look", type=click.Choice(["second_look", "box_and_holes"]), default="second_look", help="The kind of change."
)
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Set a key of docs/transfer_data.md.")
@click.option("--roi", metavar="Z0:Z1,Y0:Y1,X0:X1", help="The region to write, nm. [default: all]")
@click.option(
    "--labels/--no-labels", default=True, show_default=True, help="Whether labels and mask are carried along."
)
@options.stated_grid("source")
@options.workers
def main(
    source: Path, to: Path, look: str, overrides: tuple[str, ...], roi: str | None, labels: bool, workers: Any
) -> None:
    """Write FROM.zarr with changed volumes/raw, uint8, as TO, a .zarr or .h5 container; labels are copied.

    The same seed gives the same bytes, on any number of workers. The same command continues a stopped run.
    """
    from emsuite.common.settings import load
    from emsuite.data.derived.degradations import DEGRADATIONS
    from emsuite.data.derived.degrade import degrade

    chosen = load(DEGRADATIONS[look], overrides=overrides)
    is_new = degrade(source, to, chosen, roi=roi, with_labels=labels, workers=workers)
    click.echo(f"{to}: {'written' if is_new else 'already there, made with the same settings'}")


if __name__ == "__main__":
    main()
