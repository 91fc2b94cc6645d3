#!/usr/bin/env python
"""Make fragments (supervoxels) from predicted affinities: a volume, and the nodes of the region adjacency graph."""

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
python 04_segment/extract_fragments.py --affs prediction.zarr/affs --out results
python 04_segment/extract_fragments.py --affs prediction.zarr/affs --out results --in-sections \\
    --block-size 3600,3600,3600 --context 720,720,720 --workers 16
"""
)
@click.option("--affs", type=options.FILE, metavar="ARRAY", required=True, help="Affinities (c, z, y, x) in [0, 1].")
@click.option("--out", type=options.FILE, required=True, help="Folder for fragments.zarr and graph/nodes.")
@click.option(
    "--mask",
    type=options.FILE,
    metavar="ARRAY",
    help="Where this array is 0, affinities count as 0 and no fragment lies.",
)
@options.stated_grid("affs", "mask")
@options.fragment_settings
@options.block_settings
@options.workers
def main(
    affs: Path,
    out: Path,
    mask: Path | None,
    block_size: tuple[int, ...] | None,
    context: tuple[int, ...] | None,
    workers: Any,
    **chosen: Any,
) -> None:
    """Make fragments from affinities: a watershed from seeds inside neurons.

    Writes OUT/fragments.zarr/fragments, and a table for each block to OUT/graph/nodes. The same command continues a
    stopped run.
    """
    from emsuite.common.process import silent_stdout
    from emsuite.segmentation.extract_fragments import extract_fragments
    from emsuite.segmentation.settings import FragmentSettings

    blocks = {"block_size": block_size, "context": context, "workers": workers}
    with silent_stdout():  # waterz prints its progress
        number = extract_fragments(affs, out, FragmentSettings(**chosen), mask=mask, **blocks)
    click.echo(f"{number} fragments; {out / 'fragments.zarr'}")


if __name__ == "__main__":
    main()
