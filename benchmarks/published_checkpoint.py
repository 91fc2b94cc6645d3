#!/usr/bin/env python
"""Converting a published checkpoint of full size: seconds and memory of the process, beside a copy of what is written.

A bundle as the zebra finch's mtlsd network has (95.9 million parameters, Adam's slots, 1.15 GB; values are noise) is
written first, then converted as a user does it.
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
@click.option("--folder", type=click.Path(path_type=Path), help="Where 2 GB fit. [default: the system's own]")
@save
def main(folder: Path | None, json_path: Path | None) -> None:
    """Measure the conversion of a published checkpoint."""
    print(machine(gpu=False))
    with tempfile.TemporaryDirectory(dir=folder) as place:
        report(rows(Path(place)), json_path)


def rows(place: Path) -> list[Row]:
    """One row without Adam's moments, one with them."""
    bundle, network = place / "train_net_checkpoint_400000", place / NETWORK
    run([sys.executable, ROOT / "tests/fixtures/write_bundle.py", bundle, ROOT / NETWORK])
    for path in (ROOT / NETWORK / "network.yaml", ROOT / NETWORK / "../dataset.yaml"):
        copy = place / path.resolve().relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    start = run([sys.executable, "-c", "import torch, emsuite.published.published"])
    command = [sys.executable, ROOT / "01_data/fetch_checkpoint.py", "--local", bundle, network]
    made = []
    for what, options in (("weights", []), ("weights and Adam's moments", ["--with-optimizer"])):
        cost = run([*command, *options])
        made.append(row(what, cost, start, next(network.glob("checkpoints/*.pt"))))
    return made


def row(what: str, cost: Cost, start: Cost, written: Path) -> Row:
    """A conversion beside the copy of the file that it wrote; memory is that beyond the imports'."""
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
