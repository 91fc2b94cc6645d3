#!/usr/bin/env python
"""Time a training iteration of an image-to-image U-Net with its data, beside CAREamics."""

import resource
import runpy
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
from iteration import time_iterations
from measure import ask_peer, peer_cost
from table import Row, memory, report, seconds
from table import peers as peers_option
from table import save as save_option

from emsuite.cli.command import stage
from emsuite.common.errors import RunFailed
from emsuite.common.files import write_text
from emsuite.config.network import build_network, load_network

ROOT = Path(__file__).resolve().parents[1]
PATCH, BATCH = 64, 8
LEVEL = "[[1, 3, 3], [1, 3, 3]]"
NETWORK = f"""
plate: {{path: PLATE, input_channels: [phase]}}
voxel_size: [VOXEL]
unet:
  num_fmaps: 32
  fmap_inc_factor: 2
  downsample_factors: [[1, 2, 2], [1, 2, 2]]
  kernel_sizes_down: [{LEVEL}, {LEVEL}, {LEVEL}]
  kernel_sizes_up: [{LEVEL}, {LEVEL}]
  padding: same
  norm: batch
  upsample: bilinear
heads:
  nuclei: {{target: image, target_channels: [nuclei], loss: mae}}
training:
  iterations: 1000
  input_shape: [1, {PATCH}, {PATCH}]
  batch_size: {BATCH}
  sampling: {{}}
  augment: [{{name: mirror_transpose, mirror: [1, 2], transpose: [1, 2]}}]
  checkpoint_every: 100000
  snapshot_every: 100000
prediction: {{input_shape: [1, 256, 256]}}
"""


@stage(example="python benchmarks/images.py")
@click.option("--iterations", type=click.IntRange(40), default=120, help="Of each program.")
@peers_option
@save_option
def main(iterations: int, peers: bool, json_path: Path | None) -> None:
    """Train on the synthetic plate from fresh weights, as 02_train/train.py does: batches of 8 of 64x64 pixels.

    CAREamics trains at mean absolute error with flips and turns, on the same normalized images: the same network, made
    of its own blocks, and the network that it has by default, whose last convolution of a level halves the channels.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        plate = make_plate(folder)
        arrays = [save(folder / f"{c}.npy", images(plate, c)) for c in ("phase", "nuclei")] if peers else []
        rows = []
        for precision in ("float32", "bfloat16"):
            rows += measure(write_network(folder / f"microdl/{precision}", plate), arrays, precision, iterations)
    report(rows, json_path)


def measure(folder: Path, arrays: list[Path], precision: str, iterations: int) -> list[Row]:
    """Return the rows of one precision; without arrays the peer is left out."""
    from emsuite.training.volumes import load_training_data

    config = load_network(folder, [f"training.precision={precision}"])
    wall = time_iterations(folder, config, load_training_data(config, [], ROOT), "cpu", 0, iterations)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    weights = sum(p.numel() for p in build_network(config).parameters())
    name = f"training images, 2-D U-Net, {precision}, {BATCH} of {PATCH}x{PATCH}: iteration with its data"
    ours = f"{seconds(wall)}, {weights:,} weights"
    if not arrays:
        return [Row(name, ours, "", None, "", memory(used))]
    rows = []
    for network, of in (("same", "the same network"), ("own", "its own network")):
        answer = ask_careamics(arrays, precision, iterations, network)
        if network == "same" and answer["parameters"] != weights:
            raise RunFailed(f"CAREamics trains {answer['parameters']} weights, expected {weights}")
        theirs = peer_cost(answer)
        beside = f"CAREamics {seconds(theirs.wall)}, {answer['parameters']:,} weights"
        goal = ">= 1.5" if network == "same" else ""
        used_by = f"{memory(used)} / {memory(theirs.memory)}"
        rows.append(Row(f"{name}, beside {of}", ours, beside, theirs.wall / wall, goal, used_by))
    return rows


def ask_careamics(arrays: list[Path], precision: str, iterations: int, network: str) -> dict[str, Any]:
    """Return what the peer measured; for the networks see its script."""
    import torch

    mixed = {"float32": "32-true", "bfloat16": "bf16-mixed"}[precision]
    return ask_peer("careamics", "train.py", *arrays, PATCH, BATCH, iterations, mixed, network,
                    OMP_NUM_THREADS=str(torch.get_num_threads()))  # fmt: skip


def make_plate(folder: Path) -> Path:
    """Return the folder of the synthetic plate, preprocessed."""
    run("synthesize_plate.py", folder / "frames")
    write_text(folder / "preprocess.yaml", f"input: {folder / 'frames'}\noutput: {folder / 'ready'}\nflat_field: {{}}\n"
               "split: {}\n")  # fmt: skip
    run("preprocess.py", folder / "preprocess.yaml")
    return folder / "ready"


def run(script: str, *words: object) -> None:
    """Run a script of 01_data in this process."""
    try:
        runpy.run_path(str(ROOT / "01_data" / script))["main"].main([str(word) for word in words])
    except SystemExit as end:
        if end.code:
            raise RunFailed(f"{script}: ended with {end.code}, see above") from None


def write_network(folder: Path, plate: Path) -> Path:
    """Write the network of the plate, with the plate's voxel size."""
    from emsuite.plates.plate import open_plate

    size = open_plate(plate / "plate.zarr").voxel_size_nm or (1, 1, 1)
    text = NETWORK.replace("PLATE", str(plate)).replace("VOXEL", ", ".join(f"{n:g}" for n in size))
    folder.mkdir(parents=True)
    write_text(folder / "network.yaml", text)
    return folder


def images(plate: Path, channel: str) -> np.ndarray:
    """Return all images (S, Y, X) of a channel, in deviations from their mean."""
    from emsuite.plates.plate import open_plate

    opened = open_plate(plate / "plate.zarr")
    number = opened.channels.index(channel)
    stacks = [opened.read(p, t, number) for p in opened.positions for t in range(opened.shape(p)[0])]
    voxels = np.concatenate(stacks).astype(np.float32)
    return (voxels - voxels.mean()) / voxels.std()


def save(path: Path, array: np.ndarray) -> Path:
    """Write an array, and return its path."""
    np.save(path, array)
    return path


if __name__ == "__main__":
    main()
