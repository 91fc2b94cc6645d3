#!/usr/bin/env python
"""Train a network up to an iteration, starting from its newest checkpoint."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

try:
    import click

    from emsuite.cli import options
    from emsuite.cli.command import stage
except ModuleNotFoundError as error:
    if "EMSUITE_IMAGE" in os.environ:  # the image tells more
        raise
    raise SystemExit(f"error: {error}; expected the Python of .venv: . .venv/bin/activate, see README.md") from None

if TYPE_CHECKING:
    from emsuite.config.trained_with import IfChanged


@stage(
    example="""
python 02_train/train.py 02_train/fib25/small --data data/funke/fib25/training/trvol-250-2.zarr
cd 02_train/zebrafinch/mtlsd && python ../../train.py 400001
torchrun --nnodes 1 --rdzv-backend c10d --rdzv-conf store_type=file --nproc-per-node 4 \\
    02_train/train.py 02_train/fib25/mtlsd --set training.batch_size=4
"""
)
@options.network_and("iterations")
@click.option("--iterations", type=click.IntRange(min=1), help="Train up to here (default: the network's own number).")
@options.training_volumes
@options.device
@click.option("--seed", type=click.IntRange(min=0), help="The same seed gives the same batches and weights.")
@click.option(
    "--if-changed",
    type=click.Choice(["refuse", "continue", "keep"]),
    default="refuse",
    help="If the checkpoint was trained with other settings or data: say what differs and end; go on with the new "
    "ones; or keep it, if it is trained far enough.",
)
@options.overrides
def main(
    network_dir: Path,
    iterations: int | None,
    volumes: tuple[str, ...],
    device: str,
    seed: int | None,
    if_changed: "IfChanged",
    overrides: tuple[str, ...],
) -> int:
    """Train the network in NETWORK_DIR (default: the folder you stand in) up to ITERATIONS.

    Checkpoints, snapshots and losses go to its folders checkpoints/, snapshots/ and log/. NETWORK_DIR/runs/NAME trains
    the same network once more, in this folder. Ctrl-C, SIGTERM and SIGUSR1 save a checkpoint and end the run, with exit
    code 130, 143 or 138; a second Ctrl-C ends it at once. The same command continues it.
    """
    from emsuite.common.device import pick_device
    from emsuite.common.process import kept_memory, make_cublas_deterministic, stay_on_loopback
    from emsuite.config.network import load_network
    from emsuite.data.watched import Watched
    from emsuite.training.resume import recorded_grey_range
    from emsuite.training.trainer import train
    from emsuite.training.volumes import load_held_out, load_training_data, paths_read, with_probabilities

    seeded = [] if seed is None else [f"training.sampling.seed={seed}"]
    config = load_network(network_dir, [*overrides, *seeded])
    project = Path(__file__).resolve().parents[1]
    config = with_probabilities(config, volumes, project)
    watched = Watched.of(paths_read(config, volumes, project))
    loaded = load_training_data(config, volumes, project, recorded_grey_range(network_dir, config))
    held_out = load_held_out(config, project, loaded)
    stay_on_loopback()
    if config.training.deterministic:
        make_cublas_deterministic()
    with kept_memory():
        until = iterations or config.training.iterations
        return train(network_dir, config, loaded, until, pick_device(device), if_changed, held_out, watched)


if __name__ == "__main__":
    main()
