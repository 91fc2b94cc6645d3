#!/usr/bin/env python
"""Serve a trained network over HTTP: blocks of raw go in, predictions come out."""

import os
from pathlib import Path
from typing import Any

try:
    import click

    from emsuite.cli import options
    from emsuite.cli.command import stage
    from emsuite.common.process import keep_memory, share_memory
except ModuleNotFoundError as error:
    if "EMSUITE_IMAGE" in os.environ:  # the image tells more
        raise
    raise SystemExit(f"error: {error}; expected the Python of .venv: . .venv/bin/activate, see README.md") from None


@stage(
    example="""
python 03_predict/serve.py 02_train/fib25/small
python 03_predict/serve.py 02_train/fib25/small --volume slab=data/funke/fib25/training/trvol-250-1.zarr/volumes/raw
"""
)
@options.network
@click.option("--iteration", type=click.IntRange(min=1), help="Checkpoint to use (default: the newest).")
@options.direction
@click.option("--volume", "volumes", multiple=True, metavar="NAME=RAW", help="Raw that clients may ask for by name.")
@click.option("--port", type=click.IntRange(0, 65535), default=8900, show_default=True, help="0: any that is free.")
@click.option("--most-voxels", type=click.IntRange(min=1), default=2**26, show_default=True, help="Of one request.")
@click.option("--waiting", type=click.IntRange(min=0), default=8, show_default=True, help="Requests that may wait.")
@click.option("--token-file", type=options.FILE, help="File with the token that clients must send.")
@options.bind
@options.device
@options.overrides
def main(
    network_dir: Path,
    iteration: int | None,
    direction: Any,
    volumes: tuple[str, ...],
    port: int,
    most_voxels: int,
    waiting: int,
    token_file: Path | None,
    bind: str,
    device: str,
    overrides: tuple[str, ...],
) -> None:
    """Serve the network in NETWORK_DIR until Ctrl-C, see docs/serve.md. Prints the address.

    Other machines can connect only with --bind; give them a --token-file then.
    """
    from emsuite.common.device import pick_device
    from emsuite.config.network import load_network
    from emsuite.prediction.serving.model import Model
    from emsuite.prediction.serving.server import listen, open_volumes, read_token, serve
    from emsuite.training.transfer.trained import load_for_prediction

    share_memory()
    keep_memory()
    config, where, listening = load_network(network_dir, overrides), pick_device(device), listen(bind, port)
    made = load_for_prediction(network_dir, config, iteration, direction)
    name = f"{config.dataset}/{config.network}" + (f" {direction}" if direction else "")
    model = Model(name, made.network.eval(), config, where, made.iteration, made.digest, made.reads)
    serve(model, open_volumes(model, volumes), listening, most_voxels, waiting, read_token(token_file))


if __name__ == "__main__":
    main()
