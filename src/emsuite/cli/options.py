"""The command-line options that several stage scripts share, each under one name.

@options.network             NETWORK_DIR          the folder of a network
@options.network_and(...)    ... [ITERATIONS]     the same, and a number behind it, as the published scripts take it
@options.stated_grid(...)    --voxel-size, --offset, --endpoint-url   of volumes whose files say none, and of s3://
@options.workers             --workers, --slurm   processes, or jobs of a cluster
@options.threads             --workers            threads of this process
@options.endpoint            --endpoint-url ...   an S3 endpoint
@options.fragment_settings   --flood, --seeds...  an option for each key of a settings class
"""

import functools
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from emsuite.cli.types import Lengths, Nanometres, Voxels, Workers
from emsuite.common.errors import BadInput
from emsuite.common.process import environment_with
from emsuite.config.layout import EXAMPLE_NETWORK

NamedLengths = tuple[tuple[str, list[float]], ...]
FILE = click.Path(path_type=Path)
VOXELS, COUNTS, LENGTHS = Voxels(), Voxels(with_zero=True), Lengths()

device = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="auto takes the GPU if there is one."
)
overrides = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Set a key of the network's configuration, as training.batch_size=2; may be repeated.",
)
_training_volumes = click.option(
    "--data",
    "volumes",
    metavar="VOLUME.zarr[@ROI]",
    multiple=True,
    help="Volume to train on; with @z0:z1,y0:y1,x0:x1 (nm) only the labels inside this region. May be repeated. "
    "Default: the data set's training split below data/.",
)
bind = click.option(
    "-b",
    "--bind",
    default="127.0.0.1",
    metavar="ADDRESS",
    help="The address to listen on; with any other than the default, other machines can connect.",
)

threads = click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=lambda: len(os.sched_getaffinity(0)),
    show_default="processors",
    help="Threads at once.",
)


def training_volumes(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--data`, volumes to train on, with `--voxel-size` and `--offset` of those whose files say none."""
    return _training_volumes(stated_grid("volumes")(command))


def tiling_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--tile`, `--blend` and `--valid`; the function gets one argument `tiles`, a dictionary of them.

    They say where the tiles of a prediction lie, how overlapping outputs combine, and whether context is made up.
    """
    from emsuite.cli.schema import names_in

    blend = click.option(
        "--blend",
        type=click.Choice(["crop", *names_in("emsuite.prediction.blending", "BLENDINGS")]),
        help="crop keeps each voxel from one tile; the others are windows for the weighted mean of tiles that overlap "
        "by half, for networks whose output depends on the tile. A window costs up to twelve times the work of crop. "
        "[default: crop; linear for generators with instance normalization]",
    )
    tile = click.option(
        "--tile",
        type=click.Choice(["stride", "original"]),
        default="stride",
        help="original: the published experiments' tiles, zeros around the volume, for their bytes.",
    )
    valid = click.option("--valid", is_flag=True, help="Predict only what has real context; by default it is mirrored.")

    @functools.wraps(command)
    def with_tiles(*args: Any, tile: str, blend: str | None, valid: bool, **others: Any) -> Any:
        return command(*args, tiles={"tile": tile, "valid": valid, "blend": blend}, **others)

    return valid(tile(blend(with_tiles)))


direction = click.option(
    "--direction",
    type=click.Choice(["A2B", "B2A"]),
    help="Of domain transfer: from the look of A to that of B, or back.",
)


def request_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--mask`, `--constant` and `--compression`; the function gets `asked`, which turns raw into a `Request`."""

    @click.option(
        "--mask",
        type=FILE,
        help="Array of any voxel size, as V.zarr/volumes/mask: voxels where it is 0, or ends, stay 0; tiles without "
        "others are skipped.",
    )
    @click.option(
        "--constant",
        type=click.Choice(["skip", "predict"]),
        default="skip",
        show_default=True,
        help="Tiles whose raw is one value throughout, their surrounding included: skip leaves them 0.",
    )
    @click.option(
        "--compression",
        metavar="NAME[:LEVEL]",
        default="zstd",
        show_default=True,
        help="Of the arrays: zstd, blosc-lz4 or none, with a level, as zstd:5.",
    )
    @functools.wraps(function)
    def with_request(*args: Any, mask: Path | None, constant: str, compression: str, **others: Any) -> Any:
        def asked(raw: Any) -> Any:
            from emsuite.prediction.request import make_request

            return make_request(raw, mask, constant, compression)

        return function(*args, asked=asked, **others)

    return with_request


def _settings(module: str, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        from emsuite.cli.schema import options_of  # few scripts need it, and each --help should come at once

        return options_of(module, name)(command)

    return decorate


_SEGMENTATION = "emsuite.segmentation.settings"
fragment_settings = _settings(_SEGMENTATION, "FragmentSettings")
agglomeration_settings = _settings(_SEGMENTATION, "AgglomerationSettings")
sweep_settings = _settings(_SEGMENTATION, "SweepSettings")
scoring_settings = _settings(_SEGMENTATION, "ScoringSettings")
block_settings = _settings(_SEGMENTATION, "BlockSettings")
context_settings = _settings(_SEGMENTATION, "ContextSettings")
instance_settings = _settings("emsuite.segmentation.instances.settings", "InstanceSettings")
labels_rule = _settings("emsuite.data.membranes", "LabelsRule")
phantom_settings = _settings("emsuite.phantom.settings", "PhantomSettings")


def _network_folder(_context: object, _option: object, value: Path | None) -> Path:
    """Return the folder in the command line, or else the current folder if it is a network's."""
    if value is not None:
        return value
    if (Path.cwd() / "network.yaml").exists():
        return Path.cwd()
    raise BadInput(f"no NETWORK_DIR given, and this folder has no network.yaml; expected one, as {EXAMPLE_NETWORK}")


network = click.argument("network_dir", type=FILE, required=False, callback=_network_folder)


def network_and(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds `[NETWORK_DIR] [NUMBER]`; the number stands for the option `--NAME`, a whole number.

    The function gets `network_dir`, and the number as the option. A single word that is a number is a folder if there
    is one of that name with a network.yaml.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @click.argument("words", metavar=f"[NETWORK_DIR] [{name.upper()}]", nargs=-1)
        @functools.wraps(function)
        def with_network(*args: Any, words: tuple[str, ...], **others: Any) -> Any:
            folders = list(words)
            is_folder = len(words) == 1 and (Path(words[0]) / "network.yaml").exists()
            if words and words[-1].isdecimal() and not is_folder:
                number = int(folders.pop())
                if number < 1 or others[name] not in (None, number):
                    raise click.UsageError(f"{name} {number}: expected a number above 0, once")
                others[name] = number
            if len(folders) > 1:
                raise click.UsageError(f"{' '.join(words)}: expected the folder of a network, and a number behind it")
            network_dir = _network_folder(None, None, Path(folders[0]) if folders else None)
            return function(*args, network_dir=network_dir, **others)

        return with_network

    return decorate


def stated_grid(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds `--voxel-size`, `--offset` and `--endpoint-url`, for volumes whose files say none.

    The function gets no argument of them: `open_volume` takes them, in this process and in its workers, the first two
    for the paths that the options or arguments `names` give. With several names, `NAME=` before the lengths means one
    of them alone.
    """
    name_of = {name.removesuffix("_path"): name for name in names}
    one_of = f" NAME= before it, of {', '.join(name_of)}, means one volume alone; may be repeated." if names[1:] else ""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @click.option("--voxel-size", type=Nanometres(True), multiple=True, metavar="Z,Y,X",
                      help=f"Voxel size in nm, where a file says none, as 40,4.6,4.6.{one_of}")  # fmt: skip
        @click.option("--offset", type=Nanometres(False), multiple=True, metavar="Z,Y,X",
                      help="Position in nm of the first voxel, where a file says none.")  # fmt: skip
        @click.option("--endpoint-url", metavar="URL",
                      help="The server of s3:// volumes, as http://127.0.0.1:9000. [default: AWS]")  # fmt: skip
        @functools.wraps(function)
        def with_grid(
            *args: Any, voxel_size: NamedLengths, offset: NamedLengths, endpoint_url: str | None, **others: Any
        ) -> Any:
            said = [("--voxel-size", *pair) for pair in voxel_size] + [("--offset", *pair) for pair in offset]
            with ExitStack() as stack:
                if endpoint_url:
                    stack.enter_context(environment_with("AWS_ENDPOINT_URL_S3", endpoint_url))
                for option, name, lengths in said:
                    if name not in ("", *name_of):
                        raise click.UsageError(f"{option} {name}=: expected {' or '.join(name_of)} before =")
                    values = [others[name_of[name]]] if name else [others[each] for each in names]
                    stack.enter_context(environment_with(*_stated(option, lengths, values)))
                return function(*args, **others)

        return with_grid

    return decorate


def _stated(option: str, lengths: list[float], values: list[Any]) -> tuple[str, str]:
    from emsuite.io.volume import stated_grid  # needs NumPy, which is loaded when the process is set up

    each = [part for value in values for part in (value if isinstance(value, tuple) else (value,))]
    # a text is VOLUME or VOLUME@ROI
    paths = [part.partition("@")[0] if isinstance(part, str) else part for part in filter(None, each)]
    if not paths:
        raise click.UsageError(f"{option} goes with a volume that is named in the command line")
    return stated_grid(paths, *((lengths, None) if option == "--voxel-size" else (None, lengths)))


def workers(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--workers` and `--slurm`; the function gets one argument `workers`, a number or `SlurmSettings`."""

    @click.option(
        "--workers",
        type=Workers(),
        default=lambda: len(os.sched_getaffinity(0)),
        show_default="processors",
        help="Number of processes on this machine; or slurm, for jobs on a cluster.",
    )
    @click.option(
        "--slurm",
        metavar="KEY=VALUE",
        multiple=True,
        help="Setting of the jobs, as workers=10 or partition=cpu; docs/segmentation.md lists the keys. May be "
        "repeated.",
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


def endpoint(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name an S3 endpoint; the function gets one argument `endpoint`, an `Endpoint`."""

    @click.option("--endpoint-url", metavar="URL", help="Another S3 endpoint, as http://127.0.0.1:9000. [default: AWS]")
    @click.option("--ca-bundle", type=FILE, help="Certificates (PEM) to trust, for an endpoint with one of its own.")
    @click.option("--insecure", is_flag=True, help="Do not check the certificate of the endpoint.")
    @functools.wraps(function)
    def with_endpoint(
        *args: Any, endpoint_url: str | None, ca_bundle: Path | None, insecure: bool, **others: Any
    ) -> Any:
        from emsuite.download.endpoint import Endpoint

        if insecure and ca_bundle:
            raise click.UsageError("--insecure checks no certificate; expected it or --ca-bundle, not both")
        return function(*args, endpoint=Endpoint(endpoint_url, ca_bundle, insecure), **others)

    return with_endpoint


def connections(default: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds `--workers`, a number of connections, to a script that downloads."""
    return click.option("--workers", type=click.IntRange(1, 256), default=default, help="Connections at once.")
