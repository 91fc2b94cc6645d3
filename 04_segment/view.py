#!/usr/bin/env python
"""Show a segmentation in neuroglancer: raw, affinities, LSDs, fragments, segmentation, ground truth."""

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


def array_option(name: str, content: str) -> click.Option:
    """Return an option that names one array."""
    return click.option(f"--{name}", type=options.FILE, metavar="ARRAY", help=f"{content} to show.")


@stage(
    example="""
python 04_segment/view.py results/fib25/small
python 04_segment/view.py results/fib25/small --position 1140,668,1172
python 04_segment/view.py results/fib25/small --labels trvol-250-2.zarr/volumes/labels/neuron_ids
"""
)
@click.argument("results", type=options.FILE, required=False)
@array_option("raw", "The raw volume")
@array_option("affs", "Affinities")
@array_option("lsds", "Local shape descriptors")
@array_option("fragments", "Fragments (supervoxels)")
@array_option("segmentation", "A segmentation")
@array_option("labels", "The ground truth")
@options.stated_grid("raw", "affs", "lsds", "fragments", "segmentation", "labels")
@click.option(
    "--position",
    metavar="NM",
    help="Centre of the views, z,y,x, as in errors.csv.",
    show_default="that of the first layer",
)
@options.bind
def main(results: Path | None, position: str | None, bind: str, **arrays: Path | None) -> None:
    """Show RESULTS, a folder that holds prediction.zarr, fragments.zarr or segmentation.zarr, or any folder above.

    Of several, the newest is shown.

    Options name further arrays by container and name, such as VOLUME.zarr/volumes/raw. Each replaces that of RESULTS.
    Prints the address to open in a browser and serves until Ctrl-C.
    """
    from emsuite.visualization.contents import result_layers
    from emsuite.visualization.viewer import parse_position, serve

    centre_nm = parse_position(position) if position else None
    serve([result_layers(results, arrays)], bind, centre_nm)


if __name__ == "__main__":
    main()
