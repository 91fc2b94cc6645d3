#!/usr/bin/env python
"""Measure the conversion of a published checkpoint of full size, beside a copy of the converted file.

The benchmark writes a TensorFlow checkpoint like that of the zebra finch's mtlsd network (95.9 million parameters with
Adam's state, 1.15 GB; the values are noise). Then it converts the checkpoint as a user does.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import click
from machine import machine
from measure import Cost, measure, run
from table import Row, report, save

from emsuite.cli.command import stage

ROOT = Path(__file__).resolve().parents[1]
NETWORK = "02_train/zebrafinch/mtlsd"


@stage(
    example="""
python benchmarks/published_checkpoint.py
python benchmarks/published_checkpoint.py --folder /scratch --json rows.json
"""
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Folder with 2 GB of free space. [default: the system's]",
)
@save
def main(folder: Path | None, json_path: Path | None) -> None:
    """Measure the conversion of a published checkpoint."""
    print(machine(gpu=False))
    with tempfile.TemporaryDirectory(dir=folder) as folder_name:
        report(rows(Path(folder_name)), json_path)


def rows(folder: Path) -> list[Row]:
    """Return one row without Adam's moments, and one with them."""
    bundle, network = folder / "train_net_checkpoint_400000", folder / NETWORK
    run([sys.executable, ROOT / "tests/fixtures/write_bundle.py", bundle, ROOT / NETWORK])
    for name in (f"{NETWORK}/network.yaml", "02_train/zebrafinch/dataset.yaml", "01_data/datasets/zebrafinch.yaml"):
        copy = folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy)
    start = run([sys.executable, "-c", "import torch, emsuite.published.published"])
    command = [sys.executable, ROOT / "01_data/fetch_checkpoint.py", "--local", bundle, network]
    measured = []
    for what, options in (("weights", ["--without-optimizer"]), ("weights and Adam's moments", [])):
        cost = run([*command, *options])
        measured.append(row(what, cost, start, next(network.glob("checkpoints/*.pt"))))
    return measured


def row(what: str, cost: Cost, start: Cost, written: Path) -> Row:
    """Return the row of a conversion, beside a copy of the file that it wrote; memory is without that of imports."""
    copied = measure(lambda: shutil.copy(written, written.with_suffix(".copy")), repeats=3)
    written.with_suffix(".copy").unlink()
    size = written.stat().st_size / 1e9
    return Row(
        f"published mtlsd, {what}: convert",
        f"{cost.wall:.1f} s ({cost.cpu:.1f} s CPU)",
        f"copy of the {size:.2f} GB written: {copied.wall:.1f} s",
        cost.wall / copied.wall,
        "at most 20 s and 1 GB" if what == "weights" else "",
        f"{(cost.memory - start.memory) / 1e9:.2f} GB",
    )


if __name__ == "__main__":
    main()
