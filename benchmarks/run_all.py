#!/usr/bin/env python
"""Run all benchmarks of one part, CPU or GPU, and write its table into RESULTS.md; keep the other part's table."""

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
from volumes import SLAB, random_cells, write

from emsuite.cli.command import stage
from emsuite.common.files import write_text

HERE = Path(__file__).resolve().parent
MTLSD = HERE.parent / "02_train/zebrafinch/mtlsd"
SMALL = MTLSD.parents[1] / "fib25/small"
BFLOAT16 = ("training.precision=bfloat16", "prediction.precision=bfloat16")
TILES = ("96,484,484", "144,700,700", "144,754,754", "168,862,862")


def training(network: Path, iterations: int, *overrides: str, goal: str = "") -> list:
    """Return the command that times training on a GPU."""
    words = ["iteration.py", network, "--device", "cuda", "--iterations", iterations, "--rounds", "1"]
    words += ["--goal", goal] if goal else []
    return [*words, *(word for override in overrides for word in ("--set", override))]


PARTS = {
    "cpu": (
        ["lsds.py"],
        ["batch.py"],
        ["iteration.py"],
        ["prediction.py"],
        ["prediction_memory.py"],
        ["segmentation.py"],
        ["images.py"],
        ["transfer.py"],
        ["published_checkpoint.py"],
    ),
    "gpu": (  # the most important figures first: time may run out
        training(MTLSD, 150, *BFLOAT16, goal="<= 12 ms"),
        ["batch.py", "--device", "cuda", "--no-peers", "--batches", "50"],
        training(SMALL, 150, goal="<= 4 ms"),
        training(SMALL, 100, "training.batch_size=8", goal="<= 8 ms"),
        ["published_outputs.py", "--device", "cuda"],
        ["forward.py", MTLSD, "--device", "cuda", "--goal", ">= 350 Mvoxel/s", "--set", BFLOAT16[1],
         *(word for tile in TILES for word in ("--tile", tile))],
        ["prediction.py", MTLSD, "--device", "cuda", "--no-peers", "--extent", "240,1620,1620",
         "--heads", "affs", "--heads", "lsds,affs", "--goal", ">= 200, 100 Mvoxel/s", "--set", BFLOAT16[1]],
        ["lsds.py", "--device", "cuda", "--no-peers"],
        training(MTLSD, 100, *BFLOAT16, "training.cuda_graph=false"),
        training(MTLSD.with_name("acrlsd"), 60, *BFLOAT16, goal="<= 1.9 of mtlsd's"),
        training(MTLSD, 60, *BFLOAT16, "training.deterministic=true"),
        ["gpu_profile.py", MTLSD, "--device", "cuda", *(word for pair in BFLOAT16 for word in ("--set", pair))],
    ),
}  # fmt: skip
PROFILE = "gpu_profile.py"
LIMIT = {"cpu": 24 * 3600.0, "gpu": 450.0}
"""Seconds after which the running benchmark is ended, and no other is started."""
MOST = {"cpu": 24 * 3600.0, "gpu": 100.0}
"""Seconds that one benchmark may take, so that one that hangs does not take the time of the others."""
WITHOUT_PEERS = ("iteration.py", "prediction_memory.py", "published_checkpoint.py", PROFILE)
TITLES = {"cpu": "CPU", "gpu": "GPU"}
PREFACE = """# Results

Written by `make bench` and `benchmarks/gpu.sh`; [README.md](README.md) explains each benchmark. "Ours" and
"beside" were measured in one run. The ratio is how many times faster the suite is than a peer, the fraction of forward
passes in a prediction, a training iteration over its bare step, the memory over that of the smallest volume, or the
time over that of the roofline.
"""


@stage(example="python benchmarks/run_all.py\npython benchmarks/run_all.py --part gpu --results /tmp/RESULTS.md")
@click.option("--part", type=click.Choice(list(PARTS)), default="cpu", help="Which part to measure.")
@click.option("--results", type=click.Path(path_type=Path), default=HERE / "RESULTS.md", show_default="RESULTS.md here")
@click.option("--peers/--no-peers", default=True, help="Whether to run the peers too (CPU part).")
def main(part: str, results: Path, peers: bool) -> int:
    """Run each benchmark in its own process, print a table, and write it into RESULTS; keep the other part's table.

    Each row is written as soon as it is measured. The GPU part writes profiles to gpu_profile.txt beside RESULTS.
    """
    about, rows, failed, end = machine(gpu=part == "gpu"), list[Row](), 0, time.monotonic() + LIMIT[part]
    beside = [] if peers or part == "gpu" else ["--no-peers"]
    if part == "cpu" and peers:
        about += f"\n- peers: {peer_versions()}"
    with tempfile.TemporaryDirectory() as folder:
        data = volume_options(part, Path(folder))
        if data:
            about += "\n- data: random cells, because FIB-25 was not found"
        old = results.read_text() if results.exists() else PREFACE
        for script, *options in PARTS[part]:
            more = beside if script not in WITHOUT_PEERS else []
            more = ["--text", results.with_name("gpu_profile.txt")] if script == PROFILE else more
            on = data if script != "published_outputs.py" else []
            until = min(end, time.monotonic() + MOST[part])
            measured = run(script, [*options, *more, *on], Path(folder) / "rows.json", until)
            failed += measured is None
            rows += measured if measured is not None else [Row(script, "failed")]
            write_text(results, replace_section(old, TITLES[part], f"{about}\n\n{as_markdown(rows)}"))
    print(f"\n{about}\n\n{as_markdown(rows)}")
    return 1 if failed else 0


def volume_options(part: str, folder: Path) -> list:
    """Return the options of the GPU part if FIB-25 is missing: a volume of random cells, made once."""
    if part == "cpu" or SLAB.is_dir():
        return []
    return ["--volume", write(folder / "cells.zarr", *random_cells((160, 250, 250)), (8, 8, 8))]


def run(script: str, options: list, rows: Path, end: float) -> list[Row] | None:
    """Return the rows of one benchmark (a profile has none), or None if it failed; it prints the reason itself."""
    rows.unlink(missing_ok=True)
    started = time.monotonic()
    command = [sys.executable, HERE / script, *options, *([] if script == PROFILE else ["--json", rows])]
    try:
        words = [str(word) for word in command]
        code = subprocess.run(words, stdout=subprocess.DEVNULL, check=False, timeout=max(1, end - started)).returncode
    except subprocess.TimeoutExpired:
        print(f"{script}: out of time", file=sys.stderr)
        code = 1
    print(f"{script}: {'failed' if code else 'done'} after {time.monotonic() - started:.0f} s", flush=True)
    return None if code else read(rows) if rows.exists() else []


def replace_section(text: str, title: str, content: str) -> str:
    """Return `text` with the section '## TITLE' replaced, or appended if there is none."""
    section = f"## {title}\n\n{content}\n"
    section_match = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if section_match is None:
        return f"{text.rstrip()}\n\n{section}"
    rest = text[section_match.end() :]
    return text[: section_match.start()] + section + (f"\n{rest}" if rest else "")


def peer_versions() -> str:
    """Return the versions of the peers, from their lock files."""
    peers, versions = ("gunpowder", "lsds", "volara", "waterz", "zarr", "careamics"), []
    for lock in sorted(PEERS.glob("*/requirements.lock")):
        pins = dict(line.split("==") for line in lock.read_text().splitlines() if "==" in line)
        versions.append(" ".join(f"{name} {pins[name]}" for name in peers if name in pins))
    return "; ".join(versions)


if __name__ == "__main__":
    main()
