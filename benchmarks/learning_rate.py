#!/usr/bin/env python
"""Is the rate that find_learning_rate.py suggests a good one? Train at it, at a tenth of it and at ten times it."""

import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
from networks import TRAIN, copy_network, network
from table import Row, report, save

DATA = Path(os.environ.get("EMSUITE_TEST_DATA", TRAIN.parents[1] / "shared/data"))
FACTORS = {"suggested": 1.0, "a tenth": 0.1, "ten times": 10.0}
LAST = 0.1
"""Of the iterations, those whose losses are averaged."""


def run(script: str, *words: object) -> None:
    """Run a script of 02_train, quietly."""
    subprocess.run([sys.executable, TRAIN / script, *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def losses_of(folder: Path) -> np.ndarray:
    """Return the losses of a training that logged each iteration."""
    with open(folder / "log/losses.csv", newline="") as file:
        return np.array([float(row["loss"]) for row in csv.DictReader(file)])


@click.command()
@network
@click.option("--data", type=click.Path(path_type=Path), default=DATA / "fib25/training/trvol-250-2.zarr")
@click.option("--iterations", type=int, default=200)
@save
def main(network: Path, data: Path, iterations: int, json_path: Path | None) -> None:
    """Print the mean loss of the last tenth of the iterations at each rate; the samples and first weights are the same.

    The rate is constant, without warm-up, as in the search.
    """
    rows, losses = [], {}
    with tempfile.TemporaryDirectory() as made:
        plain = ["training.optimizer.schedule=constant", "training.optimizer.warm_up=0", "training.log_every=1"]
        folder, _ = copy_network(network, Path(made) / "search", plain)
        table = Path(made) / "rates.csv"
        run("find_learning_rate.py", folder, "--data", data, "--out", table, "--steps", iterations)
        with open(table, newline="") as file:
            tried = [(float(row["learning_rate"]), float(row["loss"])) for row in csv.DictReader(file)]
        suggested = min(tried, key=lambda pair: pair[1])[0] / 10
        for name, factor in FACTORS.items():
            rate = [*plain, f"training.optimizer.learning_rate={suggested * factor:.6g}"]
            folder, _ = copy_network(network, Path(made) / name.replace(" ", "_"), rate)
            run("train.py", folder, iterations, "--data", data, "--device", "cpu")
            losses[name] = float(losses_of(folder)[-round(LAST * iterations) :].mean())
    best = losses["suggested"]
    for name, factor in FACTORS.items():
        what = f"training, {network.parent.name} {network.name}, {iterations} iterations at {suggested * factor:.2g}"
        beside = "" if name == "suggested" else f"at the suggested rate {best:.4f}"
        ratio = None if name == "suggested" else losses[name] / best
        rows.append(Row(what, f"loss {losses[name]:.4f}", beside, ratio, "" if ratio is None else "> 1"))
    report(rows, json_path)


if __name__ == "__main__":
    main()
