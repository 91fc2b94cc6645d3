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
from volumes import SLAB, random_cells, write

from emsuite.cli.command import stage
from emsuite.common.files import write_text

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
    "gpu": (  # what is wanted most comes first: time may run out
        ["iteration.py", MTLSD, "--device", "cuda", "--iterations", "300", "--rounds", "1", "--goal", "<= 15 ms",
         "--set", "training.precision=bfloat16"],
        ["batch.py", "--device", "cuda", "--no-peers", "--batches", "50"],
        ["prediction.py", MTLSD, "--device", "cuda", "--no-peers", "--extent", "240,1620,1620",
         "--goal", ">= 100 Mvoxel/s", "--set", "prediction.precision=bfloat16"],
        ["gpu_profile.py", MTLSD, "--device", "cuda",
         "--set", "training.precision=bfloat16", "--set", "prediction.precision=bfloat16"],
        ["lsds.py", "--device", "cuda", "--no-peers"],
        *(
            ["iteration.py", MTLSD, "--device", "cuda", "--iterations", "60", "--rounds", "1",
             "--set", "training.precision=bfloat16", "--set", f"training.{kind}=true"]
            for kind in ("deterministic", "compile")
        ),
    ),
}  # fmt: skip
PROFILE = "gpu_profile.py"
LIMIT = {"cpu": 24 * 3600.0, "gpu": 450.0}
"""Seconds after which what still runs is ended, and nothing more begun."""
WITHOUT_PEERS = ("iteration.py", "prediction_memory.py", "published_checkpoint.py", PROFILE)
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
    """Run every benchmark in a process of its own, print one table and write it into RESULTS, the other part kept.

    What has been measured is written at once. The GPU's part leaves profiles beside RESULTS, in gpu_profile.txt.
    """
    about, rows, failed, end = machine(gpu=part == "gpu"), list[Row](), 0, time.monotonic() + LIMIT[part]
    beside = [] if peers or part == "gpu" else ["--no-peers"]
    if part == "cpu" and peers:
        about += f"\n- peers: {peer_versions()}"
    with tempfile.TemporaryDirectory() as folder:
        data = volume_options(part, Path(folder))
        if data:
            about += "\n- data: random cells, since FIB-25 is not there"
        old = results.read_text() if results.exists() else PREFACE
        for script, *options in PARTS[part]:
            more = beside if script not in WITHOUT_PEERS else []
            more = ["--text", results.with_name("gpu_profile.txt")] if script == PROFILE else more
            made = run(script, [*options, *more, *data], Path(folder) / "rows.json", end)
            failed += made is None
            rows += made if made is not None else [Row(script, "failed")]
            write_text(results, replace_section(old, TITLES[part], f"{about}\n\n{as_markdown(rows)}"))
    print(f"\n{about}\n\n{as_markdown(rows)}")
    return 1 if failed else 0


def volume_options(part: str, folder: Path) -> list:
    """Which volume the GPU's part takes where FIB-25 is not there: random cells, made once."""
    if part == "cpu" or SLAB.is_dir():
        return []
    return ["--volume", write(folder / "cells.zarr", *random_cells((160, 250, 250)), (8, 8, 8))]


def run(script: str, options: list, rows: Path, end: float) -> list[Row] | None:
    """The rows of one benchmark, none of a profile, or None where it failed; it says itself why."""
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
