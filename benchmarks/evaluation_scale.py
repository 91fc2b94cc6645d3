#!/usr/bin/env python
"""Measure the evaluation of volumes of 1x, 4x and 16x the size: time per voxel, memory, one and fifty thresholds."""

import json
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
import pyarrow
import pyarrow.parquet
from measure import Cost, run
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial import KDTree
from table import Row, memory, report, seconds
from table import save as save_option
from volumes import read, synthetic, volume

from emsuite.cli.command import stage
from emsuite.common.files import write_json
from emsuite.common.outputs import manifest_path
from emsuite.io.skeletons import Skeletons
from emsuite.io.volume import create_volume
from emsuite.segmentation.find_segments import components
from emsuite.segmentation.region_graph import Edges

ROOT = Path(__file__).resolve().parents[1]
VOXEL = 8  # nm
PER_FRAGMENT = 1000  # voxels
TRACED = 10  # every tenth neuron has a skeleton
THRESHOLDS = [round(0.02 * i, 2) for i in range(1, 51)]
SIDES = (1, 2, 4)  # tiles along y and x
TYPES = {"u": np.uint64, "v": np.uint64, "score": np.float32, "contact": np.int64}


@stage(
    example="""
python benchmarks/evaluation_scale.py
python benchmarks/evaluation_scale.py --synthetic --block 128
"""
)
@volume
@synthetic
@click.option("--workers", default=2, help="Number of processes.")
@click.option("--block", default=128, help="Voxels per axis of a block.")
@save_option
def main(volume: Path, synthetic: bool, workers: int, block: int, json_path: Path | None) -> None:
    """Repeat the labels of a volume, divide them into fragments, and score the fragments with evaluate.py.

    Each repetition has its own ids, so that tables grow as in a large volume.
    """
    labels = read(volume, synthetic)[1]
    fragments, edges = fragments_of(labels)
    rows, first = [], 0.0
    for side in SIDES:
        with tempfile.TemporaryDirectory() as name:
            folder, voxels = Path(name), labels.size * side**2
            write_scene(folder, labels, fragments, edges, side)
            sweep, peak = evaluate(folder, folder / "lookup", workers, block)
            one, _ = evaluate(folder, folder / "one", workers, block)
            first = first or sweep.cpu / voxels
            what = f"{side**2}x: {voxels / 1e6:.0f} Mvoxel, {workers} workers, blocks of {block}"
            rows += [
                Row(f"evaluation {what}", f"{sweep.cpu / voxels * 1e9:.0f} s CPU/Gvoxel", f"1x {first * 1e9:.0f}",
                    sweep.cpu / voxels / first, "<= 1.15", memory=memory(peak["process"])),
                Row(f"a worker, {what}", memory(peak["largest_child"]), memory=memory(peak["largest_child"])),
                Row(f"{len(THRESHOLDS)} thresholds, {what}", f"{seconds(sweep.cpu)} CPU, {seconds(sweep.wall)}",
                    f"one {seconds(one.cpu)} CPU, {seconds(one.wall)}", sweep.cpu / one.cpu, "<= 2"),
            ]  # fmt: skip
    report(rows, json_path)


def evaluate(folder: Path, lookup: Path, workers: int, block: int) -> tuple[Cost, dict[str, int]]:
    """Return the cost of the script, and the peak memory in bytes of its process and of its largest worker."""
    cost = run(
        [sys.executable, ROOT / "04_segment/evaluate.py", "--fragments", folder / "v.zarr/fragments",
         "--labels", folder / "v.zarr/labels", "--lookup", lookup, "--skeletons", folder / "skeletons",
         "--out", folder / "out", "--workers", str(workers), "--block-size", ",".join([str(block * VOXEL)] * 3)],
        OMP_NUM_THREADS="1",
    )  # fmt: skip
    return cost, json.loads((folder / "out/scores.json").read_text())["provenance"]["peak_memory"]


def fragments_of(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return fragments from 1 up, of which a twentieth crosses a border, and the pairs (E, 2) that touch."""
    random = np.random.default_rng(0)
    seeds = random.uniform(0, labels.shape, (labels.size // PER_FRAGMENT, 3))
    nearest = KDTree(seeds).query(np.stack(np.indices(labels.shape, np.float32), -1), workers=-1)[1]
    merging = random.random(len(seeds)) < 0.05
    cell = np.where(merging[nearest], -1, labels) * len(seeds) + nearest
    fragments = np.unique(cell, return_inverse=True)[1].reshape(labels.shape) + 1
    pairs = []
    for axis in range(3):
        along = np.moveaxis(fragments, axis, 0)
        differ = along[1:] != along[:-1]
        pairs.append(np.sort(np.stack([along[1:][differ], along[:-1][differ]], 1), axis=1))
    return fragments, np.unique(np.concatenate(pairs), axis=0)


def write_scene(folder: Path, labels: np.ndarray, fragments: np.ndarray, pairs: np.ndarray, side: int) -> None:
    """Write fragments, labels, skeletons and two lookup tables (all thresholds, and one) of the repeated volume."""
    depth, height, width = labels.shape
    count, tiles = int(fragments.max()), side * side
    for name, ids in (("fragments", fragments), ("labels", labels)):
        shape = (depth, height * side, width * side)
        volume = create_volume(folder / "v.zarr" / name, shape, np.uint64, (VOXEL,) * 3, (0, 0, 0))
        for tile in range(tiles):
            y, x = tile // side * height, tile % side * width
            volume.array[:, y : y + height, x : x + width] = np.where(ids > 0, ids + tile * int(ids.max()), 0)
    inside = np.unique(fragments, return_index=True)[1]
    label, places = labels.reshape(-1)[inside], np.stack(np.unravel_index(inside, labels.shape), 1)
    same = label[pairs[:, 0] - 1] == label[pairs[:, 1] - 1]
    random = np.random.default_rng(1)
    score = np.where(same, random.uniform(0, 0.6, same.size), random.uniform(0.5, 1.5, same.size))
    u, v = ((np.arange(tiles)[:, None] * count + pairs[:, end]).reshape(-1) for end in (0, 1))
    edges = Edges(*(np.asarray(c, t) for c, t in zip((u, v, np.tile(score, tiles), u), TYPES.values(), strict=True)))
    write_lookup(folder, np.arange(1, tiles * count + 1, dtype=np.uint64), edges)
    write_skeletons(folder / "skeletons", pairs[same], label, places, (side, height, width))


def write_lookup(folder: Path, fragments: np.ndarray, edges: Edges) -> None:
    """Write lookup tables in the form of find_segments.py."""
    columns = {"fragment": fragments} | {repr(t): s for t, s in components(fragments, edges, THRESHOLDS)}
    kept = {"lookup": list(columns), "one": ["fragment", repr(0.5)]}
    for name, names in kept.items():
        (folder / name).mkdir()
        write_json(manifest_path(folder / name), {})
        table = pyarrow.table({column: columns[column] for column in names})
        pyarrow.parquet.write_table(table, folder / name / "segments.parquet")


def write_skeletons(
    folder: Path, pairs: np.ndarray, label: np.ndarray, places: np.ndarray, tile: tuple[int, int, int]
) -> None:
    """Write skeletons: trees through the fragments of some neurons, in each repetition."""
    side, height, width = tile
    kept = np.flatnonzero(label % TRACED == 0)
    numbered = np.full(label.size, -1)
    numbered[kept] = np.arange(kept.size)
    pairs = numbered[pairs - 1]
    pairs, label, places = pairs[(pairs >= 0).all(axis=1)], label[kept], places[kept]
    length = np.linalg.norm(places[pairs[:, 0]] - places[pairs[:, 1]], axis=1)
    graph = coo_array((length, tuple(pairs.T)), shape=(label.size, label.size)).tocsr()
    tree = np.stack(minimum_spanning_tree(graph).nonzero(), 1)
    shifts = [np.array([0, n // side * height, n % side * width]) for n in range(side * side)]
    positions = np.concatenate([(places + shift + 0.5) * VOXEL for shift in shifts])
    skeleton = np.concatenate([label + n * (int(label.max()) + 1) for n in range(len(shifts))])
    edges = np.concatenate([tree + n * label.size for n in range(len(shifts))])
    Skeletons(np.arange(len(positions)), skeleton, positions, np.ones(len(positions)), edges).save(folder)


if __name__ == "__main__":
    main()
