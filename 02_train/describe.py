#!/usr/bin/env python
"""Describe a network: layers, parameters, receptive field, legal shapes, arithmetic and memory."""

import os
from pathlib import Path

try:
    import click

    from emsuite.cli import options
    from emsuite.cli.command import stage
except ModuleNotFoundError as error:
    if "EMSUITE_IMAGE" in os.environ:  # the image tells more
        raise
    raise SystemExit(f"error: {error}; expected the Python of .venv: . .venv/bin/activate, see README.md") from None


@stage(example="python 02_train/describe.py 02_train/zebrafinch/mtlsd")
@options.network
@click.option("--input-shape", type=options.VOXELS, help="Voxels of raw (default: the network's training input).")
@options.overrides
def main(network_dir: Path, input_shape: tuple[int, ...] | None, overrides: tuple[str, ...]) -> None:
    """Describe the network in NETWORK_DIR (default: the folder you stand in); computes nothing, needs no checkpoint."""
    from emsuite.config.describe import as_text, describe
    from emsuite.config.network import load_network

    config = load_network(network_dir, overrides)
    click.echo(as_text(config, describe(network_dir, config, input_shape or config.training.input_shape)))


if __name__ == "__main__":
    main()
