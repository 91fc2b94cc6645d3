#!/usr/bin/env python
"""Time work on the CPU beside a busy program, with all cores and with one: waiting for the other must not cost more."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np
from measure import measure
from table import Row, report, seconds
from table import save as save_option
from volumes import mirrored, read
from volumes import synthetic as synthetic_option
from volumes import volume as volume_option

from emsuite.cli.command import stage

GOAL = "<= 1.5"
SHAPE = (160, 160, 160)
NEIGHBORHOOD = [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [-9, 0, 0], [0, -9, 0], [0, 0, -9]]
SMALL = Path(__file__).resolve().parents[1] / "02_train/fib25/small"


@stage(example="python benchmarks/busy.py --synthetic")
@volume_option
@synthetic_option
@click.option("--competitors", default=1, help="Busy processes beside the work, at a lower priority (nice 5).")
@click.option("--rounds", default=3, help="Rounds, each with one core and with all; the result is the median.")
@save_option
def main(volume: Path, synthetic: bool, competitors: int, rounds: int, json_path: Path | None) -> None:
    """Compare all cores with one core, both beside competitors; a ratio above 1 is time lost by waiting for others."""
    import torch

    _, labels = read(volume, synthetic)
    cut = mirrored(labels, SHAPE)
    all_cores, rows = torch.get_num_threads(), []
    with competing(competitors):
        for what, work in works(cut):
            walls: dict[int, list[float]] = {1: [], all_cores: []}
            for _ in range(rounds):
                for threads, found in walls.items():
                    torch.set_num_threads(threads)
                    found.append(measure(work, repeats=1).wall)
            alone, together = (statistics.median(walls[threads]) for threads in (1, all_cores))
            name = f"{what}, {all_cores} threads beside {competitors} busy"
            rows.append(Row(name, seconds(together), f"1 thread beside them {seconds(alone)}", together / alone, GOAL))
    report(rows, json_path)


def works(labels: np.ndarray) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield work by its name."""
    import torch

    from emsuite.config.network import build_network, load_network
    from emsuite.targets.affinities import affinities
    from emsuite.targets.boundary import grow_boundary
    from emsuite.targets.lsds import local_shape_descriptors

    size = "x".join(map(str, SHAPE))
    yield f"LSDs {size}", lambda: local_shape_descriptors(labels, 80, (8, 8, 8), 2)
    yield f"affinities {size}", lambda: affinities(labels, NEIGHBORHOOD)
    yield f"boundary {size}", lambda: grow_boundary(labels)
    config = load_network(SMALL)
    network = build_network(config)
    raw = torch.rand(1, 1, *config.training.input_shape)
    with torch.inference_mode():
        yield "forward pass, fib25 small", lambda: network(raw)


@contextmanager
def competing(number: int) -> Iterator[None]:
    """Within the block, `number` processes compute for no purpose."""
    command = [sys.executable, "-S", "-c", "import os; os.nice(5)\nwhile True: pass"]
    processes = [subprocess.Popen(command) for _ in range(number)]
    try:
        time.sleep(0.2)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
