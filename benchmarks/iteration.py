#!/usr/bin/env python
"""Time a training iteration with its data, beside a bare step: the trainer's own, always on the same batch."""

import itertools
import statistics
import tempfile
from contextlib import closing
from pathlib import Path

import click
import roofline
from measure import device as device_option
from measure import measure
from networks import copy_network
from networks import network as network_argument
from table import Row, memory, report, seconds
from table import save as save_option
from volumes import mirrored, read, write
from volumes import synthetic as synthetic_option
from volumes import volume as volume_option

from emsuite.cli import options
from emsuite.cli.command import stage
from emsuite.common.process import make_cublas_deterministic
from emsuite.config.network import frozen_network_folder, load_network

EVERY = 10
"""Iterations between two readings of the clock."""


@stage(
    example="""
python benchmarks/iteration.py
python benchmarks/iteration.py 02_train/zebrafinch/mtlsd --device cuda --synthetic --set training.precision=bfloat16
"""
)
@network_argument
@volume_option
@synthetic_option
@device_option
@click.option("--iterations", type=click.IntRange(3 * EVERY), default=60, help="Iterations of a round.")
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=5,
    help="Rounds between bare steps; the median counts.",
)
@click.option("--goal", default="", help="Goal to print beside the result, for example '<= 15 ms'.")
@options.overrides
@save_option
def main(
    network: Path,
    volume: Path,
    synthetic: bool,
    device: str,
    iterations: int,
    rounds: int,
    goal: str,
    overrides: tuple[str, ...],
    json_path: Path | None,
) -> None:
    """Train the network in NETWORK_DIR (default: fib25/small) from fresh weights, as 02_train/train.py does.

    The volume is mirrored to 160x400x400 voxels, or more for larger samples, which count as voxels of the network's
    size. An autocontext network reads the descriptors of a network with fresh weights.
    """
    import torch

    from emsuite.data.training_volume import load_training_volume

    with tempfile.TemporaryDirectory() as temporary:
        quiet = [f"training.log_every={EVERY}", *(f"training.{k}_every={10**9}" for k in ("checkpoint", "snapshot"))]
        folder, config = copy_network(network, Path(temporary), [*quiet, *overrides])
        if config.training.deterministic:
            make_cublas_deterministic()
        volumes = [load_training_volume(write_volume(Path(temporary), config, *read(volume, synthetic)))]
        bare, whole = [time_bare_step(folder, config, volumes, device, iterations // 2)], list[float]()
        most = bare[0].memory
        for number in range(rounds):  # alternating, because the speed of a machine changes from minute to minute
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            whole.append(time_iterations(folder, config, volumes, device, number * iterations, iterations))
            most = torch.cuda.max_memory_allocated() if device == "cuda" else most
            if device == "cpu" or rounds > 1:
                bare.append(time_bare_step(folder, config, volumes, device, iterations // 2))
    bare = bare if len(bare) > 1 else bare * 2
    around = [(before.wall + after.wall) / 2 for before, after in itertools.pairwise(bare)]
    ratio, took = statistics.median(w / b for w, b in zip(whole, around, strict=True)), statistics.median(around)
    goals, what = "<= 1.1" + (f", {goal}" if goal else ""), name_of(config)
    rows = [Row(f"{what}: iteration with its data", seconds(statistics.median(whole)), f"bare step {seconds(took)}",
                ratio, goals, memory(most))]  # fmt: skip
    if device == "cuda":
        rows.append(roofline.row(f"{what}: bare step", work_of(folder, config), took, roofline.measure_rates()))
    report(rows, json_path)


def name_of(config) -> str:
    """Return what is trained, with the settings that change its speed."""
    training = config.training
    kinds = [kind for kind in ("compile", "deterministic") if getattr(training, kind)]
    kinds += ["without a CUDA graph"] if getattr(training, "cuda_graph", None) is False else []
    kinds = [f"batch of {training.batch_size}"] * (training.batch_size > 1) + kinds
    return ", ".join(["training", f"{config.dataset} {config.network}", training.precision, *kinds])


def write_volume(folder: Path, config, raw, labels) -> Path:
    """Write a volume of 160x400x400 voxels, mirrored, or more if the samples are as large; return its path."""
    shape = [max(n, m * 5 // 4) for n, m in zip((160, 400, 400), config.training.input_shape, strict=True)]
    return write(folder / "volume.zarr", mirrored(raw, shape), mirrored(labels, shape), config.voxel_size)


def work_of(folder: Path, config) -> roofline.Work:
    """Return the work of a training step; before it, an autocontext network predicts LSDs, without gradients."""
    from emsuite.training.trained_network import build_with_frozen

    training = config.training
    if config.autocontext is None:
        return roofline.step(config)
    network, frozen = build_with_frozen(folder, config)[0], load_network(frozen_network_folder(folder, config))
    context = roofline.forward(frozen, training.input_shape, training.precision, training.batch_size)
    return context + roofline.step(config, network.trained_input_shape(training.input_shape))


def time_iterations(folder: Path, config, volumes, device: str, first: int, number: int) -> float:
    """Return the seconds per iteration of the trainer from `first` on, from its log, without the first entry."""
    import torch
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from emsuite.common.process import kept_memory
    from emsuite.training.trainer import train

    with kept_memory():
        train(folder, config, volumes, first + number, torch.device(device))
    events = EventAccumulator(str(folder / "log")).Reload()
    logged = [event for event in events.Scalars("loss") if event.step > first and event.step % EVERY == 0]
    return statistics.median((b.wall_time - a.wall_time) / (b.step - a.step) for a, b in itertools.pairwise(logged))


def time_bare_step(folder: Path, config, volumes, device: str, steps: int):
    """Return the cost of forward, loss, backward and update, with raw and targets already on the device."""
    from emsuite.common.device import deterministic
    from emsuite.common.process import kept_memory

    step = make_step(folder, config, volumes, device)

    def steps_in_a_row() -> None:
        for _ in range(EVERY):
            step()

    with deterministic(config.training.deterministic), kept_memory():
        cost = measure(steps_in_a_row, max(1, steps // EVERY), device=device)
    return type(cost)(cost.wall / EVERY, cost.cpu / EVERY, cost.memory)


def make_step(folder: Path, config, volumes, device: str):
    """Return a function that runs the trainer's own step, always on the same batch, which is already on the device."""
    import torch

    from emsuite.data.training_volume import on_device
    from emsuite.training.batches import BatchShare
    from emsuite.training.registry import STEPS
    from emsuite.training.resume import start_or_resume

    where, step = torch.device(device), STEPS[config.step]
    state = start_or_resume(folder, config, where)
    first, share = state.iteration + 1, BatchShare(0, config.training.batch_size)
    made = step.make_batches(state, config, on_device(volumes, where), share, range(first, first + 1), where)
    with closing(made):
        batches = itertools.repeat(next(made))
    iterations = itertools.count(first)
    return lambda: step.run(state, config, batches, next(iterations))


if __name__ == "__main__":
    main()
