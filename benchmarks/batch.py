#!/usr/bin/env python
"""Time the making of a training batch of the published zebrafinch mtlsd network, beside gunpowder and lsds."""

import tempfile
from pathlib import Path

import click
from measure import ask_peer, measure, peer_cost
from measure import device as device_option
from table import Row, memory, report, seconds
from table import peers as peers_option
from table import save as save_option
from volumes import mirrored, read, write
from volumes import synthetic as synthetic_option
from volumes import volume as volume_option

from emsuite.cli.command import stage

NETWORK = Path(__file__).resolve().parents[1] / "02_train/zebrafinch/mtlsd"
EXTENT = (160, 400, 400)
"""The volume is mirrored to these voxels; the network's voxel size is assumed for them."""


@stage(example="python benchmarks/batch.py\npython benchmarks/batch.py --no-peers --device cuda --synthetic")
@volume_option
@synthetic_option
@device_option
@click.option("--batches", default=10, help="Number of batches; the result is the median.")
@peers_option
@save_option
def main(volume: Path, synthetic: bool, device: str, batches: int, peers: bool, json_path: Path | None) -> None:
    """Time raw 84x268x268 with targets of 48x56x56: location, elastic, mirror, intensity, boundary, LSDs, affinities.

    The volume is mirrored to 160x400x400 voxels, which count as 20x9x9 nm; both programs read the same volume.
    """
    from emsuite.config.network import load_network

    config = load_network(NETWORK)
    raw, labels = (mirrored(array, EXTENT) for array in read(volume, synthetic))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "volume.zarr", raw, labels, config.voxel_size)
        for workers in (1, 2) if device == "cpu" else (1,):
            ours = time_batches(config, path, device, batches, workers)
            what = f"training batch, zebrafinch mtlsd, {['', 'one process', 'two workers'][workers]}"
            row = Row(what, seconds(ours.wall), memory=memory(ours.memory))
            if device == "cuda":
                row = Row("training batch, zebrafinch mtlsd, GPU", row.ours, goal="<= 4 ms", memory=row.memory)
            if peers:
                theirs = peer_cost(ask_peer("gunpowder", "batch.py", path, batches, workers))
                ratio, peaks = theirs.wall / ours.wall, f"{memory(ours.memory)} / {memory(theirs.memory)}"
                goal = ">= 4" if workers == 1 else ""
                row = Row(what, row.ours, f"gunpowder {seconds(theirs.wall)}", ratio, goal, peaks)
            rows.append(row)
    report(rows, json_path)


def time_batches(config, path: Path, device: str, number: int, workers: int):
    """Return the cost of one batch, made by `workers` threads; on the CPU, torch uses one core in each of them."""
    from emsuite.common.pipelining import prefetch

    make = batch_maker(config, path, device)
    if workers == 1:
        iterations = iter(range(1, 10**9))
        return measure(lambda: make(next(iterations)), number, warm_up=2, device=device)
    batches = prefetch(make, 1, 10**9, ahead=2 * workers, workers=workers)
    for _ in range(2 * workers):  # these were made before the measurement
        next(batches)
    cost = measure(lambda: [next(batches) for _ in range(number)], repeats=1, warm_up=0, device=device)
    batches.close()
    return type(cost)(cost.wall / number, cost.cpu / number, cost.memory)


def batch_maker(config, path: Path, device: str):
    """Return a function that makes the batch of an iteration."""
    import torch

    from emsuite.common.device import use_one_core
    from emsuite.data.sampler import Sampler
    from emsuite.data.training_volume import load_training_volume
    from emsuite.models.receptive_field import output_shape
    from emsuite.training.batches import make_batch, prepared_targets

    training, where = config.training, torch.device(device)
    shape, context = output_shape(config.unet, training.input_shape), config.target_maker.label_context
    volumes = [load_training_volume(path).to(where)]
    sampler = Sampler(volumes, training.input_shape, shape, context, training.augment, training.sampling)

    targets = prepared_targets(config.target_maker, sampler)
    # as in training: a stream of its own, where targets can be a CUDA graph
    stream = torch.cuda.Stream(where, priority=-1) if where.type == "cuda" else None

    def make(iteration: int):
        use_one_core()
        with torch.cuda.stream(stream):  # None: no change
            batch = make_batch(targets, sampler.batch(iteration, training.batch_size), iteration, where)
            return batch.arrays["raw"] * 2 - 1, batch.targets

    return make


if __name__ == "__main__":
    main()
