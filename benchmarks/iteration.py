#!/usr/bin/env python
"""Time a training iteration with its data, beside a bare step (forward, backward, update) without data."""

import itertools
import statistics
import tempfile
from pathlib import Path

import click
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

    The volume is mirrored to 160x400x400 voxels, which count as voxels of the network's size.
    """
    import torch

    from emsuite.common.process import make_cublas_deterministic
    from emsuite.data.training_volume import load_training_volume

    with tempfile.TemporaryDirectory() as temporary:
        quiet = [f"training.log_every={EVERY}", *(f"training.{k}_every={10**9}" for k in ("checkpoint", "snapshot"))]
        folder, config = copy_network(network, Path(temporary), [*quiet, *overrides])
        raw, labels = (mirrored(array, (160, 400, 400)) for array in read(volume, synthetic))
        if config.training.deterministic:
            make_cublas_deterministic()
        volumes = [load_training_volume(write(Path(temporary) / "volume.zarr", raw, labels, config.voxel_size))]
        bare, whole = [time_bare_step(folder, config, volumes, device, iterations // 2)], list[float]()
        most = bare[0].memory
        for number in range(rounds):  # alternating, because the speed of a machine changes from minute to minute
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            whole.append(time_iterations(folder, config, volumes, device, number * iterations, iterations))
            most = torch.cuda.max_memory_allocated() if device == "cuda" else most
            bare.append(time_bare_step(folder, config, volumes, device, iterations // 2))
    around = [(before.wall + after.wall) / 2 for before, after in itertools.pairwise(bare)]
    ratio = statistics.median(w / b for w, b in zip(whole, around, strict=True))
    kinds = [kind for kind in ("compile", "deterministic") if getattr(config.training, kind)]
    what = ", ".join(["training", f"{config.dataset} {config.network}", config.training.precision, *kinds])
    what += ": iteration with its data"
    goals = "<= 1.1" + (f", {goal}" if goal else "")
    beside = f"bare step {seconds(statistics.median(around))}"
    report([Row(what, seconds(statistics.median(whole)), beside, ratio, goals, memory(most))], json_path)


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
    """Return a function that trains one step, always on the same batch, which is already on the device."""
    import torch

    from emsuite.common.device import computing_in, tensor_float_32
    from emsuite.data.sampler import Sampler
    from emsuite.data.training_volume import on_device
    from emsuite.losses.registry import LOSSES
    from emsuite.losses.target import HeadOutput
    from emsuite.training.batches import make_batch
    from emsuite.training.resume import start_or_resume

    where, training = torch.device(device), config.training
    state = start_or_resume(folder, config, where)
    shape, context = state.network.output_shape(training.input_shape), config.target_maker.label_context
    volumes = on_device(volumes, where)
    sampler = Sampler(volumes, training.input_shape, shape, context, training.augment, training.sampling)
    batch = make_batch(config.target_maker, sampler.batch(1, training.batch_size), 1, where)
    raw = (batch.arrays["raw"] * 2 - 1).to(memory_format=torch.channels_last_3d)
    targets = batch.targets
    weights = list(state.network.parameters())

    @tensor_float_32(training.precision == "tf32")
    def step() -> None:
        with computing_in(where, training.precision):
            logits = state.forward(raw)
        parts = [
            LOSSES[head.loss](HeadOutput(logits[name].float(), head.activate), targets[name])
            for name, head in config.heads.items()
        ]
        state.optimizer.zero_grad()
        torch.stack(parts).sum().backward()
        if training.optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(weights, training.optimizer.clip_norm)
        state.optimizer.step()

    return step


if __name__ == "__main__":
    main()
