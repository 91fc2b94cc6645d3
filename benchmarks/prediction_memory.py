#!/usr/bin/env python
"""Measure the peak memory of prediction on volumes of 1x, 4x and 16x the size: the tile determines it."""

import sys
import tempfile
from pathlib import Path

import click
from measure import run
from networks import SMALL, copy_network, save_untrained
from table import Row, memory, report, seconds
from table import save as save_option
from volumes import mirrored, read, write
from volumes import synthetic as synthetic_option
from volumes import volume as volume_option

from emsuite.cli.command import stage

PREDICT = Path(__file__).resolve().parents[1] / "03_predict/predict.py"
SHALLOW = ("unet.num_fmaps=2", "unet.downsample_factors=[[2,2,2]]")
"""A network with little memory of its own, so that memory that grows with the volume would show."""


@stage(example="python benchmarks/prediction_memory.py --side 128")
@volume_option
@synthetic_option
@click.option("--side", default=160, help="Voxels in z; the first volume is twice as wide.")
@save_option
def main(volume: Path, synthetic: bool, side: int, json_path: Path | None) -> None:
    """Run 03_predict/predict.py on volumes of 1, 4 and 16 times the size, with tiles of the same size."""
    rows: list[Row] = []
    smallest = None
    with tempfile.TemporaryDirectory() as temporary:
        folder, config = copy_network(SMALL, Path(temporary), SHALLOW)
        save_untrained(folder, config)
        for times in (1, 2, 4):
            shape = (side, 2 * side * times, 2 * side * times)
            path = write(Path(temporary) / "v.zarr", mirrored(read(volume, synthetic)[0], shape), None, (8, 8, 8))
            out = Path(temporary) / f"p{times}.zarr"
            tile = ",".join([str(side // 2 + 32)] * 3)
            words = [folder, "--raw", path / "volumes/raw", "--out", out, "--device", "cpu", "--input-shape", tile]
            cost = run([sys.executable, PREDICT, *words])
            smallest = smallest or cost.memory
            what = f"memory of prediction, {'x'.join(map(str, shape))}"
            beside = f"1x: {memory(smallest)}" if times > 1 else ""
            ratio = cost.memory / smallest if times > 1 else None
            rows.append(Row(what, seconds(cost.wall), beside, ratio, "<= 1.1" if ratio else "", memory(cost.memory)))
    report(rows, json_path)


if __name__ == "__main__":
    main()
