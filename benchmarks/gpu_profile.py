#!/usr/bin/env python
"""Profile training steps, batches, tiles and convolutions on a GPU, and write the profiles as text."""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click
from batch import batch_maker
from iteration import make_step
from measure import device as device_option
from measure import measure
from networks import copy_network, save_untrained
from networks import network as network_argument
from table import seconds
from tiles import grey_tile, predictor_of
from volumes import mirrored, read, write
from volumes import synthetic as synthetic_option
from volumes import volume as volume_option

from emsuite.cli import options
from emsuite.cli.command import stage

ROWS = 30
ALIGNED = 8
"""Tensor cores compute with multiples of this number of 16-bit channels."""


@stage(
    example="python benchmarks/gpu_profile.py 02_train/zebrafinch/mtlsd --device cuda --text profile.txt --synthetic"
)
@network_argument
@volume_option
@synthetic_option
@device_option
@click.option("--extent", type=options.VOXELS, default="160,400,400", help="Voxels to which the volume is mirrored.")
@click.option(
    "--text",
    type=click.Path(path_type=Path),
    default="gpu_profile.txt",
    help="File to write.",
)
@options.overrides
def main(
    network: Path,
    volume: Path,
    synthetic: bool,
    device: str,
    extent: tuple[int, ...],
    text: Path,
    overrides: tuple[str, ...],
) -> int:
    """Profile the network in NETWORK_DIR (default: fib25/small), with fresh weights; the volume gets its voxel size."""
    from emsuite.common.device import deterministic
    from emsuite.data.training_volume import load_training_volume

    text.write_text("")
    with tempfile.TemporaryDirectory() as temporary, deterministic(False):
        folder, config = copy_network(network, Path(temporary), overrides)
        raw, labels = (mirrored(array, extent) for array in read(volume, synthetic))
        path = write(Path(temporary) / "volume.zarr", raw, labels, config.voxel_size)
        what, numbers = f"of {config.dataset} {config.network}, {config.training.precision}", itertools.count(1)
        done = [
            add(text, f"A training step {what}",
                lambda: profile(make_step(folder, config, [load_training_volume(path)], device), device)),
            add(text, "A training batch",
                lambda: profile(partial(on_next, batch_maker(config, path, device), numbers), device)),
            add(text, "Steps while batches are made, which they do not train on",
                lambda: side_by_side(make_step(folder, config, [load_training_volume(path)], device),
                                     batch_maker(config, path, device), device)),
            add(text, f"A predicted tile of {config.dataset} {config.network}, {config.prediction.precision}",
                lambda: profile_tile(folder, config, path / "volumes/raw", device)),
            add(text, f"Convolutions {what}", lambda: convolutions(config, device)),
        ]  # fmt: skip
    return 0 if all(done) else 1


def on_next(work: Callable[[int], object], numbers: Iterator[int]) -> object:
    """Return the result of `work` for the next number."""
    return work(next(numbers))


def add(text: Path, title: str, make: Callable[[], str]) -> bool:
    """Append a part to the file and print it. Return False if it failed; the other parts are made nevertheless."""
    try:
        content, done = make(), True
    except Exception as error:
        content, done = f"failed: {type(error).__name__}: {error}", False
    part = f"{title}\n{'=' * len(title)}\n\n{content}\n\n"
    print(part, flush=True)
    with text.open("a") as file:
        file.write(part)
    return done


def profile(work: Callable[[], object], device: str, repeats: int = 5) -> str:
    """Return torch's profile of `repeats` calls: kernels by GPU time, then calls by host time."""
    import torch
    from torch.profiler import ProfilerActivity

    cost = measure(work, repeats, 3, device)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(repeats):
            work()
        if device == "cuda":
            torch.cuda.synchronize()
    parts = [f"{seconds(cost.wall)} without the profiler, {seconds(cost.cpu)} of CPU; below: {repeats} times"]
    for order in ["self_cuda_time_total"] * (device == "cuda") + ["self_cpu_time_total"]:
        parts.append(profiler.key_averages().table(sort_by=order, row_limit=ROWS, max_name_column_width=80))
    return "\n".join(parts)


def side_by_side(step: Callable[[], object], make: Callable[[int], object], device: str, number: int = 20) -> str:
    """Return the seconds per step: alone, with a batch made by the same thread, and with one made by another thread.

    Training uses another thread. Python runs one thread at a time, so the last two tell whether the threads hinder each
    other. The batch is made on a separate CUDA stream.
    """
    import torch

    from emsuite.common.pipelining import prefetch

    own = torch.cuda.Stream(priority=-1) if device == "cuda" else None

    def make_aside(iteration: int) -> object:
        with torch.cuda.stream(own):
            return make(iteration)

    def in_turn() -> None:
        for iteration in range(1, number + 1):
            step()
            make_aside(iteration)

    def ahead() -> None:
        for _ in prefetch(make_aside, 1, number + 1, 2):
            step()

    ways = {"alone": lambda: [step() for _ in range(number)], "one thread": in_turn, "two threads": ahead}
    return "\n".join(f"{name}: {seconds(measure(way, 3, 1, device).wall / number)}" for name, way in ways.items())


def profile_tile(folder: Path, config, raw: Path, device: str) -> str:
    """Return the profile of predicting a tile, from raw on the device to the host, with cuDNN's own choices."""
    from torch.backends import cudnn

    save_untrained(folder, config)
    predictor = predictor_of(folder, config, raw, config.prediction.input_shape, device)
    grey, before = grey_tile(predictor), cudnn.benchmark
    cudnn.benchmark = False  # as in predictions
    try:
        return profile(lambda: predictor(grey).arrays(), device)
    finally:
        cudnn.benchmark = before


def convolutions(config, device: str) -> str:
    """Return the seconds of each convolution: as it is, channels first, and with multiples of `ALIGNED` channels."""
    import torch

    from emsuite.config.network import build_network

    shapes: list[tuple[str, torch.nn.Conv3d, torch.Size]] = []
    with torch.device("meta"):
        network = build_network(config)
        for name, layer in network.named_modules():
            if isinstance(layer, torch.nn.Conv3d):
                layer.register_forward_hook(
                    lambda layer, given, _, name=name: shapes.append((name, layer, given[0].shape))
                )
        network(torch.empty(1, config.in_channels, *config.training.input_shape))
    lines, last, first = [], torch.channels_last_3d, torch.contiguous_format
    for name, layer, shape in shapes:
        channels = (layer.in_channels, layer.out_channels)
        aligned = tuple(-(-n // ALIGNED) * ALIGNED if n > 1 else n for n in channels)
        took = [
            seconds(time_convolution(pair, order, layer, shape[2:], config, device))
            for pair, order in ((channels, last), (channels, first), (aligned, last))
        ]
        text = f"{name}: {'x'.join(map(str, shape[2:]))}, {' -> '.join(map(str, channels))} channels: {took[0]}"
        lines.append(f"{text}; channels first: {took[1]}; {' -> '.join(map(str, aligned))} channels: {took[2]}")
    return "\n".join(lines)


def time_convolution(channels: tuple[int, ...], order, layer, shape, config, device: str) -> float:
    """Return the seconds of forward and backward of a convolution like `layer`, with other channels and order."""
    import torch

    from emsuite.common.device import tensor_float_32

    precision = torch.bfloat16 if config.training.precision == "bfloat16" else torch.float32
    convolution = torch.nn.Conv3d(*channels, layer.kernel_size, layer.stride, layer.padding)
    convolution = convolution.to(device, precision, memory_format=order)
    features = torch.rand(1, channels[0], *shape, device=device, dtype=precision).to(memory_format=order)
    features.requires_grad_(channels[0] > 1)

    @tensor_float_32(config.training.precision == "tf32")
    def work() -> None:
        output = convolution(features)
        output.backward(output)

    return measure(work, 5, 2, device).wall


if __name__ == "__main__":
    main()
