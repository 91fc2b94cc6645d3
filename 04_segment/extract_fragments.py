#!/usr/bin/env python
"""Fragments (supervoxels) of predicted affinities: a volume, and the nodes of the region adjacency graph."""

from pathlib import Path
from typing import Any

import click

from emsuite.cli import options
from emsuite.cli.command import stage

SHARE = click.FloatRange(0, 1)


@stage(
    example="""
python 04_segment/extract_fragments.py --affs prediction.zarr/affs --out results
python 04_segment/extract_fragments.py --affs prediction.zarr/affs --out results --in-sections \\
    --block-size 3600,3600,3600 --context 720,720,720 --workers 16
"""
)
@click.option("--affs", type=options.FILE, metavar="ARRAY", required=True, help="Affinities (c, z, y, x) in [0, 1].")
@click.option("--out", type=options.FILE, required=True, help="Folder for fragments.zarr and graph/nodes.")
@click.option("--mask", type=options.FILE, metavar="ARRAY", help="No fragments where this is 0.")
@click.option("--min-seed-distance", type=click.IntRange(1), default=10,
              help="Seeds are the maxima of a filter this wide, voxels.")  # fmt: skip
@click.option("--filter-fragments", type=SHARE, default=0.0, help="Drop fragments of a lower mean affinity.")
@click.option("--epsilon", type=SHARE, default=0.0, help="Agglomerate fragments up to this threshold at once.")
@click.option("--in-sections", is_flag=True, help="Each z-section alone, for anisotropic volumes.")
@click.option(
    "--flood",
    type=click.Choice(["distance", "affinity"]),
    default="distance",
    help="What the watershed floods: the distance to the boundary, as the paper, or the affinities themselves.",
)
@click.option(
    "--seeds",
    type=click.Choice(["distance", "mutex"]),
    default="distance",
    help="Where fragments begin: at maxima of the distance to the boundary, or as a mutex watershed's pieces.",
)
@click.option(
    "--bias",
    type=(SHARE, SHARE),
    default=(0.5, 0.5),
    help="Of mutex seeds: affinities above attract, those below repel; to neighbours, and farther.",
)
@click.option("--debris", type=click.IntRange(0), default=64, help="Smaller pieces are no mutex seeds, voxels.")
@options.block_size
@options.context
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

    Writes OUT/fragments.zarr/fragments and, a table per block, OUT/graph/nodes. A stopped run continues.
    """
    from emsuite.common.process import silent_stdout
    from emsuite.segmentation.extract_fragments import extract_fragments
    from emsuite.segmentation.settings import FragmentOptions

    blocks = {"block_size": block_size, "context": context, "workers": workers}
    with silent_stdout():  # waterz prints its progress
        number = extract_fragments(affs, out, FragmentOptions(**chosen), mask=mask, **blocks)
    click.echo(f"{number} fragments; {out / 'fragments.zarr'}")


if __name__ == "__main__":
    main()
