#!/usr/bin/env python
"""Measure seconds and memory of a training step and a prediction of the 21 published networks at full width."""

import resource
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np

from emsuite.cli import options
from emsuite.cli.command import stage

TRAIN = Path(__file__).resolve().parents[1] / "02_train"
DATASETS = ("zebrafinch", "fib25", "hemi")
NAMES = ("baseline", "long_range", "malis", "lsd", "mtlsd", "aclsd", "acrlsd")
ITERATION = 10_001  # the first iteration with MALIS
COLUMNS = (
    f"{'network':<22} {'parameters':>12} {'frozen':>12}  {'training':<27} {'seconds':>8} {'GiB':>6}  "
    f"{'prediction':<27} {'seconds':>8} {'GiB':>6}"
)


@stage(
    example="""
benchmarks/published_networks.py --device cpu
benchmarks/published_networks.py --device cuda --full-shape 02_train/zebrafinch/mtlsd
"""
)
@click.argument("networks", nargs=-1, type=click.Path(path_type=Path), metavar="[NETWORK_DIR ...]")
@options.device
@click.option("--full-shape", is_flag=True, help="Use the networks' own input shapes, not the smallest ones.")
@click.option("--memory", type=float, default=20.0, help="Leave out networks that need more for training, GiB.")
def main(networks: tuple[Path, ...], device: str, full_shape: bool, memory: float) -> None:
    """Train the networks (default: all published ones) for one iteration and predict one tile, with fresh weights."""
    print(COLUMNS)
    for folder in networks or [TRAIN / dataset / name for dataset in DATASETS for name in NAMES]:
        # one process for each network, because the peak memory of a process never falls
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            try:
                row = pool.submit(measure, folder, device, full_shape, memory).result()
            except BrokenProcessPool:
                row = "was killed, possibly for lack of memory"
            print(f"{folder.resolve().parent.name + '/' + folder.resolve().name:<22} {row}", flush=True)


def measure(folder: Path, device: str, full_shape: bool, memory: float) -> str:
    """Return the row of one network."""
    import torch

    from emsuite.common.device import pick_device
    from emsuite.config.describe import build_untrained, describe
    from emsuite.config.network import load_network

    where = pick_device(device)
    config = load_network(folder)
    with torch.device("meta"):
        receptive_field = build_untrained(folder, config).receptive_field
    shape = config.training.input_shape if full_shape else receptive_field.smallest
    tile = (
        receptive_field.largest_within(config.prediction.input_shape)
        if full_shape
        else receptive_field.input_for(receptive_field.stride)
    )
    about = describe(folder, config, shape)
    row = f"{about.trained:>12,} {about.frozen:>12,}  "
    if about.training_bytes > memory * 2**30:
        return row + f"left out: its training step needs about {about.training_bytes / 2**30:.1f} GiB"
    torch.manual_seed(0)
    network = build_untrained(folder, config).to(where, memory_format=torch.channels_last_3d)
    seconds, peak = timed(lambda: train_once(network, config, shape, where), where)
    row += f"{arrow(shape, about.output_shape):<27} {seconds:>8.2f} {peak:>6.2f}  "
    seconds, peak = timed(lambda: predict_once(network, config, tile, where), where)
    return row + f"{arrow(tile, network.output_shape(tile)):<27} {seconds:>8.2f} {peak:>6.2f}"


def arrow(before, after) -> str:
    """Return two shapes as text: 84x268x268 -> 48x56x56."""
    return " -> ".join("x".join(map(str, shape)) for shape in (before, after))


def timed(work, where) -> tuple[float, float]:
    """Return the seconds of `work` and the peak memory in GiB: of the process so far, or on a GPU of the work."""
    import torch

    if where.type == "cuda":
        work()  # the first run chooses kernels
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    work()
    if where.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter() - start, torch.cuda.max_memory_allocated() / 2**30
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def train_once(network, config, shape, where) -> None:
    """Train one step on random raw and blocks of labels; raise ValueError if the loss is no number."""
    import torch

    from emsuite.data.sampler import Sample
    from emsuite.models.network import trained_part
    from emsuite.training.batches import make_batch
    from emsuite.training.optimizer import make_optimizer
    from emsuite.training.registry import STEPS
    from emsuite.training.step import TrainingState

    before, behind = config.target_maker.label_context
    labelled = [b + n + e for b, n, e in zip(before, network.output_shape(shape), behind, strict=True)]
    rng = np.random.default_rng(0)
    cells = rng.integers(1, 50, [n // 10 + 1 for n in labelled])
    labels = cells.repeat(10, 0).repeat(10, 1).repeat(10, 2)[tuple(slice(n) for n in labelled)]
    raw = torch.from_numpy(rng.random((1, 1, *shape), np.float32))
    mask = torch.ones((1, *labelled), dtype=torch.uint8)
    sample = Sample({"raw": raw, "labels": torch.from_numpy(labels)[None], "mask": mask})
    optimizer = make_optimizer(list(trained_part(network).parameters()), config.training.optimizer)
    state = TrainingState({"network": network.train()}, {"network": optimizer}, iteration=ITERATION - 1)
    batches = iter([make_batch(config.target_maker, sample, ITERATION, where)])
    loss = float(STEPS["supervised"].run(state, config, batches, ITERATION).losses["loss"])
    if not np.isfinite(loss):
        raise ValueError(f"{config.dataset}/{config.network}: the loss is {loss}")


def predict_once(network, config, tile, where) -> None:
    """Predict one tile of random raw."""
    import torch

    from emsuite.prediction.predictor import Predictor, written_heads
    from emsuite.prediction.tiling import BY_STRIDE

    precision = config.prediction.precision
    predictor = Predictor(network.eval(), config, where, precision, BY_STRIDE, tile, written_heads(config))
    predictor(torch.from_numpy(np.random.default_rng(0).integers(0, 256, tile).astype(np.uint8)))


if __name__ == "__main__":
    main()
