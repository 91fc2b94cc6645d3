#!/usr/bin/env python
"""Time local shape descriptors of FIB-25 labels by the size of the volume, beside lsds."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import click
import numpy as np
from measure import Cost, ask_peer, measure, peer_cost
from measure import device as device_option
from table import Row, memory, rate, report, seconds
from table import peers as peers_option
from table import save as save_option
from volumes import mirrored, read
from volumes import synthetic as synthetic_option
from volumes import volume as volume_option

from emsuite.cli.command import stage

SIGMA, VOXEL, DOWNSAMPLE = 80, 8, 2
SHAPES = ((48, 56, 56), (104, 104, 104), (160, 160, 160), (250, 250, 250))
LARGEST_OF_PEER = 160**3  # larger volumes take it minutes
GOALS = {"LSDs 104x104x104": "<= 5 ms"}
"""On a GPU."""
AROUND = 3 * SIGMA // VOXEL  # the descriptors of a voxel depend on so many voxels on each side


@stage(example="python benchmarks/lsds.py\npython benchmarks/lsds.py --no-peers --device cuda --synthetic")
@volume_option
@synthetic_option
@device_option
@click.option("--repeats", default=5, help="Number of repeats; the result is the median.")
@peers_option
@save_option
def main(volume: Path, synthetic: bool, device: str, repeats: int, peers: bool, json_path: Path | None) -> None:
    """Time local shape descriptors of crops of a volume (mirrored if larger than it), with 1 and 2 CPU threads.

    On a GPU: by Triton, and by torch alone.
    """
    import torch

    _, labels = read(volume, synthetic)
    rows = []
    for shape in SHAPES:
        cut = mirrored(labels, shape)
        beside = ask(cut) if peers and cut.size <= LARGEST_OF_PEER else None
        for threads in (1, 2) if device == "cpu" else (1,):
            torch.set_num_threads(threads)
            on_device = torch.from_numpy(cut).to(device)
            ours = measure(lambda labels=on_device: compute(labels), repeats, device=device)
            name = f"LSDs {'x'.join(map(str, shape))}, {len(np.unique(cut))} labels, "
            rows.append(
                row(
                    name + (f"{threads} thread{'s'[: threads - 1]}" if device == "cpu" else "GPU"),
                    cut.size,
                    ours,
                    beside,
                )
            )
        if device == "cuda":
            plain = measure(lambda labels=on_device: compute_without_triton(labels), repeats, device=device)
            rows.append(row(f"LSDs {'x'.join(map(str, shape))}, GPU, torch alone", cut.size, plain, None))
    report([*rows, *rows_within(labels, device, repeats)], json_path)


def rows_within(labels: np.ndarray, device: str, repeats: int) -> list[Row]:
    """Return the cost per voxel of the same shapes within the labels that they depend on, as in training.

    Without surrounding labels, voxels near the border cost less, so that small volumes look cheaper.
    """
    import torch

    torch.set_num_threads(1)
    rows: list[Row] = []
    least = 0.0
    for shape in SHAPES:
        given = torch.from_numpy(mirrored(labels, [size + 2 * AROUND for size in shape])).to(device)
        inner = tuple(slice(AROUND, AROUND + size) for size in shape)
        ours = measure(lambda given=given, inner=inner: compute(given, inner), repeats, device=device)
        voxels = int(np.prod(shape))
        each = ours.wall / voxels
        what, took = f"LSDs {'x'.join(map(str, shape))} amid others", f"{seconds(ours.wall)}, {rate(voxels, ours.wall)}"
        if not rows:
            least = each
            rows.append(Row(what, took, memory=memory(ours.memory)))
        else:
            beside = f"a voxel of {'x'.join(map(str, SHAPES[0]))}: {least * 1e9:.0f} ns"
            rows.append(Row(what, took, beside, each / least, "flat", memory(ours.memory)))
    return rows


def compute(labels, within: Sequence[slice] | None = None) -> None:
    """Compute the descriptors with the suite."""
    from emsuite.targets.lsds import local_shape_descriptors

    local_shape_descriptors(labels, SIGMA, (VOXEL,) * 3, DOWNSAMPLE, within)


def compute_without_triton(labels) -> None:
    """Compute the descriptors as where triton is not installed."""
    with patch("emsuite.targets.lsds.has_triton", return_value=False):
        compute(labels)


def ask(labels: np.ndarray) -> Cost:
    """Return the cost of lsds for the same labels."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file.name, labels.astype(np.uint64))
        return peer_cost(ask_peer("gunpowder", "lsds.py", file.name, SIGMA, VOXEL, DOWNSAMPLE))


def row(what: str, voxels: int, ours: Cost, beside: Cost | None) -> Row:
    """Return a row of the results."""
    took = f"{seconds(ours.wall)}, {rate(voxels, ours.wall)}"
    if beside is None:
        return Row(what, took, goal=GOALS.get(what.partition(",")[0], "") if "GPU" in what else "",
                   memory=memory(ours.memory))  # fmt: skip
    goal = ">= 40" if "160x160x160" in what and "2 threads" in what else ""
    peaks = f"{memory(ours.memory)} / {memory(beside.memory)}"
    return Row(what, took, f"lsds {seconds(beside.wall)}", beside.wall / ours.wall, goal, peaks)


if __name__ == "__main__":
    main()
