"""Command-line options that several stage scripts share, under the same names."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from emsuite.cli.schema import options_of
from emsuite.cli.types import Voxels, Workers
from emsuite.common.errors import BadInput

FILE = click.Path(path_type=Path)
VOXELS = Voxels()

device = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="auto takes the GPU if there is one."
)
overrides = click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True,
                         help="Any key of the network's configuration, as training.batch_size=2.")  # fmt: skip
training_volumes = click.option(
    "--data",
    "volumes",
    metavar="VOLUME.zarr[@ROI]",
    multiple=True,
    help="Volume to train on, of which labels inside @z0:z1,y0:y1,x0:x1 (nm) alone; may be repeated. "
    "Default: the data set's training split below data/.",
)


def network_folder(_context: click.Context, _option: click.Parameter, value: Path | None) -> Path:
    """The network's folder that was given, or the one the user stands in."""
    if value is not None:
        return value
    if (Path.cwd() / "network.yaml").exists():
        return Path.cwd()
    raise BadInput("no NETWORK_DIR given, and this folder has no network.yaml; expected one, as 02_train/fib25/small")


network = click.argument("network_dir", type=FILE, required=False, callback=network_folder)


def workers(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--workers` and `--slurm`, which together become `workers`: a number, or settings for Slurm."""

    @click.option(
        "--workers",
        type=Workers(),
        default=lambda: len(os.sched_getaffinity(0)),
        show_default="processors",
        help="Processes at work on this machine; or slurm, for jobs on a cluster.",
    )
    @click.option(
        "--slurm",
        metavar="KEY=VALUE",
        multiple=True,
        help="What to ask Slurm for, as workers=10 or partition=cpu; docs/segmentation.md lists the keys.",
    )
    @functools.wraps(function)
    def with_workers(*args: Any, workers: int | str, slurm: tuple[str, ...], **others: Any) -> Any:
        if workers != "slurm":
            if slurm:
                raise click.UsageError("--slurm goes with --workers slurm")
            return function(*args, workers=workers, **others)
        from emsuite.blockwise.slurm_settings import read_slurm_settings

        return function(*args, workers=read_slurm_settings(slurm), **others)

    return with_workers


endpoint_url = click.option("--endpoint-url", help="Another S3 endpoint, as http://127.0.0.1:9000. [default: AWS]")


def connections(default: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--workers` of what fetches: a number of connections."""
    return click.option("--workers", type=click.IntRange(1, 256), default=default, help="Connections at once.")


_SEGMENTATION = "emsuite.segmentation.settings"
fragment_settings = options_of(_SEGMENTATION, "FragmentSettings")
agglomeration_settings = options_of(_SEGMENTATION, "AgglomerationSettings")
sweep_settings = options_of(_SEGMENTATION, "SweepSettings")
block_settings = options_of(_SEGMENTATION, "BlockSettings")
context = options_of(_SEGMENTATION, "ContextSettings")
phantom_settings = options_of("emsuite.phantom.settings", "PhantomSettings")
bind = click.option(
    "-b",
    "--bind",
    default="127.0.0.1",
    metavar="ADDRESS",
    help="The address to listen on; any but this one lets others in.",
)
