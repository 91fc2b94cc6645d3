#!/usr/bin/env python
"""Show a training snapshot in neuroglancer: the batch, its targets and the predictions, side by side."""

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
python 02_train/view_batch.py -f 02_train/fib25/mtlsd/snapshots/batch_1.zarr
cd 02_train/fib25/mtlsd && python ../../view_batch.py
"""
)
@click.option(
    "-f",
    "--file",
    "snapshot",
    type=options.FILE,
    metavar="SNAPSHOT",
    help="The snapshot to show. [default: the newest of the network whose folder this is run in]",
)
@options.bind
def main(snapshot: Path | None, bind: str) -> None:
    """Show the batch that the network was trained on, its targets, its predictions, and the gradients of the loss.

    Affinities appear as red (z), green (y) and blue (x). A slider in the rendering tab of a layer chooses affinities
    over other distances, or other LSDs. Prints the address to open in a browser and serves until Ctrl-C.
    """
    from emsuite.visualization.contents import newest_snapshot, snapshot_columns
    from emsuite.visualization.viewer import serve

    serve(snapshot_columns(snapshot or newest_snapshot(Path.cwd())), bind)


if __name__ == "__main__":
    main()
