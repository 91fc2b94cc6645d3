#!/usr/bin/env python
"""Local shape descriptors of FIB-25 labels: seconds and voxels per second by volume, beside lsds if it is there."""

import subprocess
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from emsuite.command import stage
from emsuite.volume import open_volume

SIGMA, VOXEL, DOWNSAMPLE = 80, 8, 2
SHAPES = [(48, 56, 56), (104, 104, 104), (160, 160, 160), (250, 250, 250)]
PEER = Path(__file__).parent / "peers" / "time_lsds.py"


@stage(example="benchmarks/lsds.py ../shared/data/fib25/training/trvol-250-2.zarr --peer peers/bin/python")
@click.argument("volume", type=click.Path(path_type=Path))
@click.option("--peer", help="A Python that has lsds 0.1.3; volumes above 160^3 are left out for it (minutes).")
@click.option("--device", default="cpu", help="cpu or cuda.")
@click.option("--threads", default=2, help="Of torch, on the CPU.")
@click.option("--repeats", default=5, help="The fastest run counts.")
def main(volume: Path, peer: str | None, device: str, threads: int, repeats: int) -> None:
    """Time local shape descriptors on cut-outs of VOLUME.zarr, mirrored where they exceed it."""
    import torch

    torch.set_num_threads(threads)
    labels = open_volume(volume / "volumes/labels/neuron_ids").read()
    print(f"{'voxels':>14} {'labels':>7} {'seconds':>9} {'Mvoxel/s':>9} {'lsds, s':>9} {'ratio':>6}")
    for shape in SHAPES:
        cut = np.pad(labels, [(0, max(0, n - m)) for n, m in zip(shape, labels.shape, strict=True)], "symmetric")
        cut = np.ascontiguousarray(cut[tuple(slice(n) for n in shape)])
        ours = fastest(torch.from_numpy(cut.view(np.int64)).to(device), repeats)
        theirs = time_peer(peer, cut) if peer and cut.size <= 160**3 else None
        row = f"{'x'.join(map(str, shape)):>14} {len(np.unique(cut)):>7} {ours:>9.4f} {cut.size / ours / 1e6:>9.1f}"
        print(row + (f" {theirs:>9.2f} {theirs / ours:>6.0f}" if theirs else ""), flush=True)


def fastest(labels, repeats: int) -> float:
    """Seconds of the fastest of some runs, after one that does not count."""
    import torch

    from emsuite.lsds import local_shape_descriptors

    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        local_shape_descriptors(labels, SIGMA, (VOXEL,) * 3, DOWNSAMPLE)
        if labels.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def time_peer(python: str, labels: np.ndarray) -> float:
    """Seconds that lsds takes in another environment."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file.name, labels)
        command = [python, PEER, file.name, *map(str, (SIGMA, VOXEL, DOWNSAMPLE))]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
