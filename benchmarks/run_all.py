#!/usr/bin/env python
"""All benchmarks of one part, the CPU's or the GPU's, into one table and into RESULTS.md; the other part stays."""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from machine import machine
from measure import PEERS
from table import Row, as_markdown, read
from volumes import SLAB

from emsuite.command import stage
from emsuite.files import write_text

HERE = Path(__file__).resolve().parent
MTLSD = HERE.parent / "02_train/zebrafinch/mtlsd"
PARTS = {
    "cpu": (
        ["lsds.py"],
        ["batch.py"],
        ["iteration.py"],
        ["prediction.py"],
        ["prediction_memory.py"],
        ["segmentation.py"],
        ["published_checkpoint.py"],
    ),
    "gpu": (
        ["lsds.py", "--device", "cuda", "--no-peers"],
        ["batch.py", "--device", "cuda", "--no-peers", "--batches", "50"],
        ["iteration.py", MTLSD, "--device", "cuda", "--iterations", "300", "--goal", "<= 15 ms",
         "--set", "training.precision=bfloat16"],
        ["prediction.py", MTLSD, "--device", "cuda", "--no-peers", "--extent", "240,1080,1080",
         "--goal", ">= 100 Mvoxel/s", "--set", "prediction.precision=bfloat16"],
    ),
}  # fmt: skip
WITHOUT_PEERS = ("iteration.py", "prediction_memory.py", "published_checkpoint.py")
TITLES = {"cpu": "CPU", "gpu": "GPU"}
PREFACE = """# Results

Written by `make bench` and `benchmarks/gpu.sh`; [README.md](README.md) says what is measured and how. Each row was
measured in one run with what stands beside it: a ratio is how many times faster ours is than a peer, the share of a
prediction that is forward passes, a training iteration over its bare step, or memory over that of the smallest volume.
"""


@stage(example="python benchmarks/run_all.py\npython benchmarks/run_all.py --part gpu --results /tmp/RESULTS.md")
@click.option("--part", type=click.Choice(list(PARTS)), default="cpu", help="Which part to measure.")
@click.option("--results", type=click.Path(path_type=Path), default=HERE / "RESULTS.md", show_default="RESULTS.md here")
@click.option("--peers/--no-peers", default=True, help="Whether the peers run as well, on the CPU.")
def main(part: str, results: Path, peers: bool) -> int:
    """Run every benchmark in a process of its own, print one table and write it into RESULTS, the other part kept."""
    about, rows, failed = machine(gpu=part == "gpu"), [], 0
    beside = [] if peers or part == "gpu" else ["--no-peers"]
    for script, *options in PARTS[part]:
        more = beside if script not in WITHOUT_PEERS else []
        synthetic = ["--synthetic"] if part == "gpu" and not SLAB.is_dir() else []
        made = run(script, [*options, *more, *synthetic])
        failed += made is None
        rows += made if made is not None else [Row(script, "failed")]
    if part == "gpu" and not SLAB.is_dir():
        about += "\n- data: random cells, since FIB-25 is not there"
    table = as_markdown(rows)
    print(f"\n{about}\n\n{table}")
    if part == "cpu" and peers:
        about += f"\n- peers: {peer_versions()}"
    old = results.read_text() if results.exists() else PREFACE
    write_text(results, replace_section(old, TITLES[part], f"{about}\n\n{table}"))
    return 1 if failed else 0


def run(script: str, options: list) -> list[Row] | None:
    """The rows of one benchmark, or None where it failed; it says itself why."""
    with tempfile.TemporaryDirectory() as folder:
        rows, started = Path(folder) / "rows.json", time.monotonic()
        command = [sys.executable, HERE / script, *options, "--json", rows]
        code = subprocess.run([str(word) for word in command], stdout=subprocess.DEVNULL, check=False).returncode
        print(f"{script}: {'failed' if code else 'done'} after {time.monotonic() - started:.0f} s", flush=True)
        return None if code else read(rows)


def replace_section(text: str, title: str, content: str) -> str:
    """`text` with what stands under '## TITLE' replaced, or with such a section at its end."""
    section = f"## {title}\n\n{content}\n"
    found = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        return f"{text.rstrip()}\n\n{section}"
    rest = text[found.end() :]
    return text[: found.start()] + section + (f"\n{rest}" if rest else "")


def peer_versions() -> str:
    """What the peers' lock files pin of the peers themselves."""
    wanted, found = ("gunpowder", "lsds", "volara", "waterz", "zarr"), []
    for lock in sorted(PEERS.glob("*/requirements.lock")):
        pins = dict(line.split("==") for line in lock.read_text().splitlines() if "==" in line)
        found.append(" ".join(f"{name} {pins[name]}" for name in wanted if name in pins))
    return "; ".join(found)


if __name__ == "__main__":
    main()
