#!/usr/bin/env python
"""Fragments (supervoxels) of predicted affinities: a volume, and the nodes of the region adjacency graph."""

import logging
from pathlib import Path
from typing import Any

import click

from emsuite import options
from emsuite.command import stage


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
@click.option(
    "--min-seed-distance",
    type=click.IntRange(1),
    default=10,
    help="Seeds are the maxima of a filter this wide, voxels.",
)
@click.option(
    "--filter-fragments", type=click.FloatRange(0, 1), default=0.0, help="Drop fragments of a lower mean affinity."
)
@click.option(
    "--epsilon", type=click.FloatRange(0, 1), default=0.0, help="Agglomerate fragments up to this threshold at once."
)
@click.option("--in-sections", is_flag=True, help="Each z-section alone, for anisotropic volumes.")
@click.option(
    "--flood",
    type=click.Choice(["distance", "affinity"]),
    default="distance",
    help="What the watershed floods: the distance to the boundary, as the paper, or the affinities themselves.",
)
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
    min_seed_distance: int,
    filter_fragments: float,
    epsilon: float,
    in_sections: bool,
    flood: str,
) -> None:
    """Make fragments from affinities: a watershed on the distance to the boundary.

    Writes OUT/fragments.zarr/fragments and, a table per block, OUT/graph/nodes. A stopped run continues.
    """
    from emsuite.fragmentation import extract_fragments
    from emsuite.fragments import FragmentOptions

    chosen = FragmentOptions(min_seed_distance, filter_fragments, epsilon, in_sections, flood)
    number = extract_fragments(affs, out, chosen, mask=mask, block_size=block_size, context=context, workers=workers)
    logging.getLogger("emsuite").info(f"{number} fragments; {out / 'fragments.zarr'}")


if __name__ == "__main__":
    main()
