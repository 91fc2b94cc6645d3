#!/usr/bin/env python
"""Suggest a learning rate for a network: train it for some iterations, at rates that rise from very low to high."""

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


@stage(
    example="""
python 02_train/find_learning_rate.py 02_train/fib25/small --data data/funke/fib25/training/trvol-250-2.zarr
cd 02_train/fib25/small && python ../../find_learning_rate.py --steps 300
"""
)
@options.network
@options.training_volumes
@click.option(
    "--lowest", type=click.FloatRange(min=0, min_open=True), default=1e-6, help="Rate of the first iteration."
)
@click.option("--highest", type=click.FloatRange(min=0, min_open=True), default=1.0, help="Rate of the last iteration.")
@click.option("--steps", type=click.IntRange(min=2), default=200, help="Iterations.")
@click.option(
    "--out", type=options.FILE, help="Table of rates and losses (default: log/learning_rates.csv of the network)."
)
@options.device
@options.overrides
def main(
    network_dir: Path,
    volumes: tuple[str, ...],
    lowest: float,
    highest: float,
    steps: int,
    out: Path | None,
    device: str,
    overrides: tuple[str, ...],
) -> None:
    """Suggest a learning rate for the network in NETWORK_DIR: a tenth of the rate at which its loss is lowest.

    Prints the rate, the option of train.py and the key of network.yaml that set it, and bounds for cyclic rates; draws
    the loss over the rate beside the table.
    The checkpoints in the folder do not change.
    """
    from emsuite.common.device import pick_device
    from emsuite.common.errors import BadInput
    from emsuite.common.outputs import lock_path
    from emsuite.common.state.lock import owned
    from emsuite.config.network import load_network
    from emsuite.training.learning_rate_finder import check_table, try_rates
    from emsuite.training.volumes import load_training_data, with_probabilities

    if lowest >= highest:
        raise BadInput(f"--lowest {lowest:g}: expected a rate below --highest, {highest:g}")
    table = out or network_dir / "log" / "learning_rates.csv"
    check_table(table)
    config = load_network(network_dir, overrides)
    project = Path(__file__).resolve().parents[1]
    config = with_probabilities(config, volumes, project)
    with owned(lock_path(table), table):
        loaded = load_training_data(config, volumes, project)
        tried = try_rates(network_dir, config, loaded, pick_device(device), (lowest, highest), steps)
        tried.write(table)
        tried.draw(table.with_suffix(".svg"))
    click.echo(tried.as_text(table))


if __name__ == "__main__":
    main()
