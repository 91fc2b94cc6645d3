#!/usr/bin/env python
"""Time the tiles of a prediction without reading and writing, in several sizes, beside the network alone."""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import click
import roofline
from measure import device as device_option
from networks import copy_network, save_untrained
from networks import network as network_argument
from table import Row, memory, rate, report, seconds
from table import save as save_option
from tiles import time_tile
from volumes import mirrored, read, write
from volumes import synthetic as synthetic_option
from volumes import volume as volume_option

from emsuite.cli import options
from emsuite.cli.command import stage
from prediction import time_forward

EXTENT = (240, 900, 900)
"""The volume is mirrored to these voxels, so that no tile is larger."""


@stage(example="python benchmarks/forward.py 02_train/zebrafinch/mtlsd --device cuda --tile 144,754,754 --synthetic")
@network_argument
@volume_option
@synthetic_option
@device_option
@click.option("--tile", "tiles", type=options.VOXELS, multiple=True, help="Voxels of raw; repeat for more tiles.")
@click.option("--goal", default="", help="Goal of the best tile to print beside it, for example '>= 350 Mvoxel/s'.")
@options.overrides
@save_option
def main(
    network: Path,
    volume: Path,
    synthetic: bool,
    device: str,
    tiles: tuple[tuple[int, ...], ...],
    goal: str,
    overrides: tuple[str, ...],
    json_path: Path | None,
) -> None:
    """Time the network in NETWORK_DIR (default: fib25/small) with fresh weights, from raw on the device to the host.

    Tiles are as large as the network takes within --tile (default: prediction.input_shape); one that does not fit into
    memory is left out. The best of them gets the goal and, on a GPU, its roofline. The network alone stops at logits.
    """

    what, timed = "", list[tuple[float, tuple[int, ...], Row, float]]()
    with tempfile.TemporaryDirectory() as temporary:
        folder, config = copy_network(network, Path(temporary), overrides)
        save_untrained(folder, config)
        heads = config.prediction.heads or tuple(config.heads)
        what = f"{config.dataset} {config.network}, {config.prediction.precision}, {' + '.join(heads)}"
        raw = write(Path(temporary) / "volume.zarr", mirrored(read(volume, synthetic)[0], EXTENT), None,
                    config.voxel_size) / "volumes/raw"  # fmt: skip
        for tile in tiles or [config.prediction.input_shape]:
            timed += time_if_it_fits(f"tile, {what}", folder, config, raw, tile, device)
    best = max(timed, key=lambda one: one[0])
    rows = [row if row is not best[2] else replace(row, goal=goal) for _, _, row, _ in timed]
    if device == "cuda":
        _, tile, _, took = best
        work = roofline.forward(config, tile, config.prediction.precision, heads=heads)
        rows.append(roofline.row(f"tile, {what}, {named(tile)}", work, took, roofline.measure_rates()))
    report(rows, json_path)


def time_if_it_fits(what: str, folder: Path, config, raw: Path, tile, device: str):
    """Return the voxels per second, the shape, the row and the seconds of a tile; nothing if memory is too small."""
    import torch

    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        shape, voxels, cost = time_tile(folder, config, raw, tile, device)
        plain = time_forward(folder, config, shape, device).wall
    except torch.OutOfMemoryError as error:
        print(f"{named(tile)}: {str(error).splitlines()[0]}", file=sys.stderr)
        return []
    took = f"{seconds(cost.wall)}, {rate(voxels, cost.wall)}"
    beside = f"network alone {seconds(plain)}, {rate(voxels, plain)}"
    row = Row(f"{what}, {named(shape)}", took, beside, plain / cost.wall, memory=memory(cost.memory))
    return [(voxels / cost.wall, shape, row, cost.wall)]


def named(shape) -> str:
    """Return a shape as text."""
    return "x".join(map(str, shape))


if __name__ == "__main__":
    main()
