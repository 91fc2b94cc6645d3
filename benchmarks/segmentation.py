#!/usr/bin/env python
"""Time the segmentation of affinities in blocks, beside volara in the same blocks and beside pipelines in memory."""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
from measure import Cost, ask_peer, peer_cost, run
from networks import SMALL, copy_network
from table import Row, memory, rate, report, seconds
from table import peers as peers_option
from table import save as save_option
from volumes import CUBE, SLAB

from emsuite.cli.command import stage

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache/benchmarks"
ITERATIONS = 600
BLOCK, CONTEXT, THRESHOLD = 128, 32, 0.5  # voxels; threshold where segments are read
RUNS = 3  # of ours, whose median counts
IN_MEMORY = (
    ("waterz", "waterz in memory, one thread", ""),
    ("distance", "distance fragments + waterz in memory, one thread", ">= 2"),
)


@stage(
    example="""
python benchmarks/segmentation.py
python benchmarks/segmentation.py --prediction results/fib25/small/trvol-250-2/prediction.zarr/affs
"""
)
@click.option("--prediction", type=click.Path(path_type=Path), metavar="ARRAY", help="Affinities (3, Z, Y, X) uint8.",
              show_default="a FIB-25 cube, predicted")  # fmt: skip
@click.option("--workers", default=2, help="Number of processes of the suite and of volara.")
@peers_option
@save_option
def main(prediction: Path | None, workers: int, peers: bool, json_path: Path | None) -> None:
    """Time blocks of 128 voxels with a context of 32, median agglomeration, one threshold, whole processes.

    The result is the median of three runs.

    Without --prediction, fib25/small predicts FIB-25's cube of 250x250x250 voxels with its newest checkpoint. If it has
    none, a copy is trained for 600 iterations. Both are kept below .cache/benchmarks.
    """
    from emsuite.io.volume import open_volume

    affs = (prediction or predicted_cube()).resolve()
    opened = open_volume(affs)
    voxels, voxel_size = opened.array[0].size, tuple(opened.voxel_size)
    with tempfile.TemporaryDirectory() as folder:
        costs = [segment(affs, Path(folder) / f"ours_{number}", voxel_size, workers) for number in range(RUNS)]
        ours = sorted(costs, key=lambda cost: cost.wall)[RUNS // 2]
        what = f"segmentation, {'x'.join(map(str, opened.spatial_shape))}, blocks of {BLOCK}, {workers} workers"
        took = f"{seconds(ours.wall)}, {rate(voxels, ours.wall)}"
        rows = [Row(what, took, memory=memory(ours.memory))]
        if peers:
            answer = ask_peer("volara", "segment.py", affs, folder, workers, BLOCK, CONTEXT)
            rows = [beside(what, took, ours, "volara", answer, ">= 6")]
            for kind, name, goal in IN_MEMORY:
                rows.append(
                    beside(what, took, ours, name, ask_peer("volara", "in_memory.py", affs, kind, THRESHOLD), goal)
                )
    report(rows, json_path)


def beside(what: str, took: str, ours: Cost, name: str, answer: dict, goal: str) -> Row:
    """Return a row of the results."""
    theirs = peer_cost(answer)
    peaks = f"{memory(ours.memory)} / {memory(theirs.memory)}"
    return Row(what, took, f"{name} {seconds(theirs.wall)}", theirs.wall / ours.wall, goal, peaks)


def segment(affs: Path, out: Path, voxel_size: Sequence[int], workers: int) -> Cost:
    """Return the cost of the scripts of 04_segment, start-up included."""
    block, context = (",".join(str(n * v) for v in voxel_size) for n in (BLOCK, CONTEXT))
    fragments, graph, lookup = out / "fragments.zarr/fragments", out / "graph", out / "lookup"
    processes = ["--workers", workers]
    steps = (
        ["extract_fragments", "--affs", affs, "--out", out, "--block-size", block, "--context", context, *processes],
        ["agglomerate", "--affs", affs, "--fragments", fragments, "--out", graph / "edges", "--context", context,
         "--merge-function", "hist_quant_50", *processes],
        ["find_segments", "--nodes", graph / "nodes", "--edges", graph / "edges", "--out", lookup,
         "--thresholds", f"{THRESHOLD},{THRESHOLD},1"],
        ["extract_segmentation", "--fragments", fragments, "--lookup", lookup, "--threshold", THRESHOLD,
         "--out", out / "segmentation.zarr", *processes],
    )  # fmt: skip
    costs = [call(f"04_segment/{name}.py", *words, OMP_NUM_THREADS="1") for name, *words in steps]
    return Cost(sum(c.wall for c in costs), sum(c.cpu for c in costs), max(c.memory for c in costs))


def predicted_cube() -> Path:
    """Return the path of the affinities of FIB-25's cube; predict them if they are missing."""
    out = CACHE / "prediction.zarr"
    folder = SMALL if any(SMALL.glob("checkpoints/checkpoint_*.pt")) else CACHE / "networks/fib25/small"
    if folder != SMALL and not any(folder.glob(f"checkpoints/checkpoint_{ITERATIONS}.pt")):
        shutil.rmtree(folder, ignore_errors=True)
        copy_network(SMALL, CACHE / "networks", [f"training.iterations={ITERATIONS}"])
        call("02_train/train.py", folder, "--data", SLAB, "--device", "cpu")
    call("03_predict/predict.py", folder, "--raw", CUBE / "volumes/raw", "--out", out, "--device", "cpu")
    return out / "affs"


def call(script: str, *words: object, **environment: str) -> Cost:
    """Run a stage script in its own process, without progress bars, and return its cost."""
    return run([sys.executable, ROOT / script, *map(str, words)], **environment)


if __name__ == "__main__":
    main()
