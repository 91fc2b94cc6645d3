#!/usr/bin/env python
"""Time the tiles of a prediction without reading and writing, in several sizes, beside the least possible time."""

import math
import tempfile
from pathlib import Path

import click
import roofline
from measure import device as device_option
from networks import copy_network, save_untrained
from networks import network as network_argument
from table import Row, memory, rate, report, seconds
from table import save as save_option
from volumes import mirrored, read, write
from volumes import synthetic as synthetic_option
from volumes import volume as volume_option

from emsuite.cli import options
from emsuite.cli.command import stage
from prediction import heads_of, time_forward

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

    Tiles are made as large as the network takes within --tile (default: prediction.input_shape); one that does not fit
    into memory is left out. The best of them gets the goal, and its roofline.
    """
    from emsuite.models.receptive_field import receptive_field

    with tempfile.TemporaryDirectory() as temporary:
        folder, config = copy_network(network, Path(temporary), overrides)
        save_untrained(folder, config)
        raw = write(Path(temporary) / "volume.zarr", mirrored(read(volume, synthetic)[0], EXTENT), None,
                    config.voxel_size) / "volumes/raw"  # fmt: skip
        field, timed = receptive_field(config.unet), []
        for tile in dict.fromkeys(map(field.largest_within, tiles or [config.prediction.input_shape])):
            cost = time_if_it_fits(folder, config, raw, tile, device)
            if cost is not None:
                timed.append((math.prod(field.step(tile)) / cost.wall, tile, cost))
    what = f"tile, {config.dataset} {config.network}, {config.prediction.precision}, {' + '.join(heads_of(config))}, "
    rows = []
    for speed, tile, cost in timed:
        took = f"{seconds(cost.wall)}, {rate(speed * cost.wall, cost.wall)}"
        aim = goal if speed == max(timed)[0] else ""
        rows.append(Row(what + "x".join(map(str, tile)), took, goal=aim, memory=memory(cost.memory)))
    if device == "cuda" and timed:
        _, tile, cost = max(timed)
        work = roofline.forward(config, tile, config.prediction.precision, heads=heads_of(config))
        rows.append(roofline.row(what + "x".join(map(str, tile)), work, cost.wall, roofline.measure_rates()))
    report(rows, json_path)


def time_if_it_fits(folder: Path, config, raw: Path, tile, device: str):
    """Return the cost of a tile, or None if the device has too little memory for it."""
    import torch

    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        return time_forward(folder, config, raw, tile, device)
    except torch.OutOfMemoryError as error:
        print(f"{tile}: {str(error).splitlines()[0]}")
        return None


if __name__ == "__main__":
    main()
