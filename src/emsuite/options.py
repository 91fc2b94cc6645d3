"""Command-line options that several stage scripts share, under the same names."""

import os
from pathlib import Path
from typing import Any

import click

from emsuite.errors import BadInput

FILE = click.Path(path_type=Path)

device = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="auto takes the GPU if there is one."
)
overrides = click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True,
                         help="Any key of the network's configuration, as training.batch_size=2.")  # fmt: skip


class Voxels(click.ParamType):
    """Three whole numbers above 0 as `z,y,x`."""

    name = "z,y,x"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The numbers as a tuple."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != 3 or min(numbers) < 1:
            self.fail(f"{value!r}: expected three whole numbers above 0, as 60,270,270", param, ctx)
        return numbers


def network_folder(_context: click.Context, _option: click.Parameter, value: Path | None) -> Path:
    """The network's folder that was given, or the one the user stands in."""
    if value is not None:
        return value
    if (Path.cwd() / "network.yaml").exists():
        return Path.cwd()
    raise BadInput("no NETWORK_DIR given, and this folder has no network.yaml; expected one, as 02_train/fib25/small")


network = click.argument("network_dir", type=FILE, required=False, callback=network_folder)

workers = click.option(
    "--workers",
    type=click.IntRange(1),
    default=lambda: len(os.sched_getaffinity(0)),
    show_default="processors",
    help="Processes at work.",
)
block_size = click.option(
    "--block-size", type=Voxels(), metavar="NM", show_default="the whole volume", help="Size of a block, z,y,x in nm."
)
context = click.option(
    "--context",
    type=Voxels(),
    metavar="NM",
    show_default="a quarter of the block",
    help="What is read around a block, z,y,x in nm.",
)
bind = click.option(
    "-b",
    "--bind",
    default="127.0.0.1",
    metavar="ADDRESS",
    help="The address to listen on; any but this one lets others in.",
)
