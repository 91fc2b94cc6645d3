#!/usr/bin/env python
"""Measure segmentation of volumes of 1x, 4x and 16x the size: blocks determine memory, voxels determine time."""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from measure import Cost, run
from segmentation_steps import commands
from table import Row, memory, report, seconds
from table import save as save_option

from emsuite.cli.command import stage

VOXEL_SIZE = (8, 8, 8)  # nm
BLOCK, CONTEXT = 96, 24  # voxels; with three blocks per axis, one block of the smallest volume has context on all sides
TIMES = {1: (1, 1, 1), 4: (1, 2, 2), 16: (4, 2, 2)}
"""How often the affinities are repeated along z, y and x, every second time mirrored."""


@stage(example="python benchmarks/segmentation_scale.py --prediction results/fib25/small/PART/prediction.zarr/affs")
@click.option("--prediction", type=click.Path(path_type=Path), metavar="ARRAY", required=True,
              help="Affinities (3, Z, Y, X) uint8.")  # fmt: skip
@click.option("--workers", default=2, help="Number of processes.")
@save_option
def main(prediction: Path, workers: int, json_path: Path | None) -> None:
    """Segment 1, 4 and 16 times the affinities, in blocks of 96 voxels with a context of 24.

    Time is the CPU time of all processes without start-up, per million voxels read. Blocks inside a volume read context
    on all sides, blocks at its faces do not: the fraction of context grows with the volume.
    """
    rows, first = [], {}
    with tempfile.TemporaryDirectory() as temporary:
        for times, along in TIMES.items():
            affs = tiled(prediction, along, Path(temporary) / "affs.zarr")
            out = Path(temporary) / "out"
            shutil.rmtree(out, ignore_errors=True)
            for name, command in commands(affs, out, VOXEL_SIZE, ["--workers", workers], BLOCK, CONTEXT).items():
                cost = run(command, OMP_NUM_THREADS="1")
                read = voxels_read(affs, 0 if name in ("find_segments", "extract_segmentation") else CONTEXT)
                rows += both(name, times, cost, read, first.setdefault(name, (cost, read)))
    report(rows, json_path)


def both(name: str, times: int, cost: Cost, voxels: int, first: tuple[Cost, int]) -> list[Row]:
    """Return a row for the time and a row for the memory of a step, beside those of the smallest volume."""
    one, few = first
    startup = run([sys.executable, "-c", "import emsuite.segmentation.extract_fragments"]).cpu
    per_voxel, at_first = (cost.cpu - startup) / voxels, (one.cpu - startup) / few
    what, grown = f"{name}, {times}x, {voxels / 1e6:.3g} Mvoxel read", times > 1
    return [
        Row(f"{what}: CPU per Mvoxel", seconds(per_voxel * 1e6), f"1x: {seconds(at_first * 1e6)}" * grown,
            per_voxel / at_first if grown else None, "<= 1.15" * grown),
        Row(f"{what}: largest process", memory(cost.memory), f"1x: {memory(one.memory)}" * grown,
            cost.memory / one.memory if grown else None, "<= 1.2" * grown),
    ]  # fmt: skip


def voxels_read(affs: Path, context: int) -> int:
    """Return the number of voxels that all blocks read together, with their context."""
    from emsuite.blockwise.grid import make_grid
    from emsuite.io.volume import open_volume

    size = [n * v for n, v in zip((BLOCK,) * 3, VOXEL_SIZE, strict=True)]
    around = [context * v for v in VOXEL_SIZE]
    blocks = make_grid(open_volume(affs), size, around)
    return sum(block.read.size // int(np.prod(VOXEL_SIZE)) for block in blocks)


def tiled(prediction: Path, along: Sequence[int], path: Path) -> Path:
    """Write the affinities, mirrored to three blocks per axis and repeated, and return their path."""
    from emsuite.io.volume import create_volume, open_volume

    whole = open_volume(prediction).read()[:3]
    whole = np.pad(whole, [(0, 0), *((0, -n % (3 * BLOCK)) for n in whole.shape[1:])], "symmetric")
    shape = [n * t for n, t in zip(whole.shape[1:], along, strict=True)]
    volume = create_volume(path / "affs", (3, *shape), np.uint8, VOXEL_SIZE, (0, 0, 0), (3, BLOCK, BLOCK, BLOCK))
    for tile in np.ndindex(*along):
        at = tuple(slice(p * n, (p + 1) * n) for p, n in zip(tile, whole.shape[1:], strict=True))
        volume.array[(slice(None), *at)] = whole[(slice(None), *(slice(None, None, -1 if p % 2 else 1) for p in tile))]
    return path / "affs"


if __name__ == "__main__":
    main()
