#!/usr/bin/env python
"""Time a prediction from zarr to zarr, beside its forward passes alone and beside gunpowder's Scan."""

import itertools
import json
import math
import runpy
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import click
from measure import Cost, ask_peer, measure, peak, peer_cost
from measure import device as device_option
from networks import copy_network, save_untrained
from networks import network as network_argument
from table import Row, memory, rate, report, seconds
from table import peers as peers_option
from table import save as save_option
from volumes import mirrored, read, write
from volumes import synthetic as synthetic_option
from volumes import volume as volume_option

from emsuite.cli import options
from emsuite.cli.command import stage
from emsuite.common.errors import RunFailed

PREDICT = Path(__file__).resolve().parents[1] / "03_predict/predict.py"


@stage(
    example="""
python benchmarks/prediction.py
python benchmarks/prediction.py 02_train/zebrafinch/mtlsd --no-peers --device cuda --synthetic \\
    --extent 240,1080,1080 --set prediction.precision=bfloat16
"""
)
@network_argument
@volume_option
@synthetic_option
@click.option("--extent", type=options.VOXELS, default="128,256,256", help="Voxels to which the volume is mirrored.")
@click.option("--input-shape", type=options.VOXELS, help="The largest tile, voxels of raw (default: as predict.py).")
@click.option(
    "--heads", multiple=True, help="Heads to write, as affs or lsds,affs; several times: in turn (default: all)."
)
@click.option("--compression", default="zstd", help="Of the chunks, as predict.py's.")
@device_option
@click.option("--repeats", default=1, help="Number of runs after a warm-up; the result is the median.")
@click.option("--goal", default="", help="Further goal to print beside the result, for example '>= 100 Mvoxel/s'.")
@options.overrides
@peers_option
@save_option
def main(
    network: Path,
    volume: Path,
    synthetic: bool,
    extent: tuple[int, ...],
    input_shape: tuple[int, ...] | None,
    heads: tuple[str, ...],
    compression: str,
    device: str,
    repeats: int,
    goal: str,
    overrides: tuple[str, ...],
    peers: bool,
    json_path: Path | None,
) -> None:
    """Predict with the network in NETWORK_DIR (default: fib25/small) and fresh weights, as 03_predict/predict.py does.

    The forward passes alone are the time of one pass as a prediction computes it, with raw on the device, times the
    number of tiles. The peer gets the same network and tiles.
    """
    rows: list[Row] = []
    for written in heads or ("",):
        chosen = (*overrides, f"prediction.heads=[{written}]") if written else overrides
        with tempfile.TemporaryDirectory() as temporary:
            folder, config = copy_network(network, Path(temporary), chosen)
            save_untrained(folder, config)
            raw = mirrored(read(volume, synthetic)[0], extent)
            asked = Asked(folder, config, raw.shape, input_shape, device, compression)
            rows += rows_of(asked, raw, repeats, goal, peers)
    report(rows, json_path)


class Asked(NamedTuple):
    """What is predicted, and how."""

    folder: Path
    config: Any
    shape: tuple[int, ...]
    input_shape: tuple[int, ...] | None
    device: str
    compression: str

    def predict(self, raw: Path, out: Path, *more: str) -> None:
        """Run 03_predict/predict.py in this process, on at most one GPU."""
        out.with_name(out.name + ".manifest.json").unlink(missing_ok=True)
        command = runpy.run_path(str(PREDICT))["main"]
        words = [self.folder, "--raw", raw, "--out", out, "--device", self.device, "--workers", 1, *more]
        words += ["--compression", self.compression]
        words += ["--input-shape", ",".join(map(str, self.input_shape))] if self.input_shape else []
        try:
            command.main([str(word) for word in words])
        except SystemExit as end:
            if end.code:
                raise RunFailed(f"{PREDICT.name}: ended with {end.code}, see above") from None


def rows_of(asked: Asked, raw, repeats: int, goal: str, peers: bool) -> list[Row]:
    """Return the rows of one prediction."""
    folder, config, device = asked.folder, asked.config, asked.device
    path = write(folder / "volume.zarr", raw, None, config.voxel_size) / "volumes/raw"
    out = folder / "prediction.zarr"
    ours = measure(lambda: asked.predict(path, out), repeats, 1, device)
    tile, count = tiles_of(out, folder, config, raw.shape)
    begun = time_start(asked, path, tile) if device == "cuda" else None
    bare = time_forward(folder, config, tile, device)
    forward = bare.wall * count
    written = "" if config.prediction.heads is None else f" ({', '.join(config.prediction.heads)})"
    name = (
        f"prediction, {config.dataset} {config.network}{written}, {config.prediction.precision}, {asked.compression}, "
    )
    name += f"{count} tiles of {'x'.join(map(str, tile))}"
    used = peak(ours, device)
    took = f"{seconds(ours.wall)}, {rate(raw.size, ours.wall)}"
    goals = (">= 0.97" if device == "cpu" else ">= 0.85") + (f", {goal}" if goal else "")
    beside = f"forward alone {seconds(forward)}, {rate(raw.size, forward)}"
    rows = [Row(name, took, beside, forward / ours.wall, goals, used)]
    if begun:
        wall, rest = ours.wall - begun.wall, raw.size * (count - 1) / count
        took, share = f"{seconds(wall)}, {rate(rest, wall)}", bare.wall * (count - 1) / wall
        name += f", without the {seconds(begun.wall)} in which it starts and predicts one"
        rows.append(Row(name, took, beside, share, goals))
    if peers:
        theirs = ask_scan(folder, config, path, tile, folder)
        peaks = f"{memory(ours.memory)} / {memory(theirs.memory)}"
        rows.append(Row(name, took, f"gunpowder {seconds(theirs.wall)}", theirs.wall / ours.wall, "", peaks))
    return rows


def time_start(asked: Asked, raw: Path, tile: tuple[int, ...]) -> Cost:
    """Return the cost of predicting one tile after a warm-up: the part that does not grow with the volume."""
    from emsuite.models.receptive_field import receptive_field

    step = receptive_field(asked.config.unet).step(tile)
    kept = [min(n, width) for n, width in zip(asked.shape, step, strict=True)]
    roi = ",".join(f"0:{n * size}" for n, size in zip(kept, asked.config.voxel_size, strict=True))
    numbers = itertools.count()
    same = asked._replace(input_shape=tile)
    return measure(
        lambda: same.predict(raw, asked.folder / f"start_{next(numbers)}.zarr", "--roi", roi), 1, 1, asked.device
    )


def tiles_of(out: Path, folder: Path, config, shape) -> tuple[tuple[int, ...], int]:
    """Return the input shape of the prediction's tiles, and the number of tiles that cover the volume."""
    from emsuite.models.receptive_field import receptive_field

    manifest = json.loads(out.with_name(out.name + ".manifest.json").read_text())
    tile = tuple(manifest["settings"]["input_shape"])
    step = receptive_field(config.unet).step(tile)
    return tile, math.prod(-(-n // width) for n, width in zip(shape, step, strict=True))


def time_forward(folder: Path, config, tile, device: str) -> Cost:
    """Return the cost of one forward pass as a prediction computes it, with raw and logits on the device.

    Memory is kept from pass to pass, as in a prediction.
    """
    import torch

    from emsuite.common.device import computing_in
    from emsuite.common.process import kept_memory
    from emsuite.prediction.predictor import Predictor, written_heads
    from emsuite.prediction.tiling import BY_STRIDE

    where, precision = torch.device(device), config.prediction.precision
    predictor = Predictor(
        trained(folder, config), config, where, precision, BY_STRIDE, tuple(tile), written_heads(config)
    ).on(where)
    raw = torch.rand((1, 1, *tile), device=where).to(memory_format=torch.channels_last_3d)

    def forward() -> None:
        with torch.inference_mode(), computing_in(where, precision):
            predictor.logits(raw)

    with kept_memory():
        return measure(forward, 3, device=device)


def trained(folder: Path, config):
    """Return the network in evaluation mode."""
    import torch

    from emsuite.training.trained_network import load_trained

    return load_trained(folder, config)[0].eval().to(memory_format=torch.channels_last_3d)


def ask_scan(folder: Path, config, raw: Path, tile, temporary: Path) -> Cost:
    """Return the cost of gunpowder's Scan, Predict and ZarrWrite with the same network and tiles."""
    from emsuite.models.receptive_field import receptive_field

    receptive_field = receptive_field(config.unet)
    kept = [
        slice(first, first + n) for first, n in zip(receptive_field.offset, receptive_field.step(tile), strict=True)
    ]
    exported = temporary / "network.pt"
    export_affinities(trained(folder, config), config, tile, kept, exported)
    numbers = [",".join(map(str, shape)) for shape in (tile, receptive_field.step(tile), receptive_field.offset)]
    return peer_cost(ask_peer("gunpowder", "predict.py", raw, exported, *numbers, OMP_NUM_THREADS=str(threads())))


def export_affinities(network, config, tile, kept: list[slice], path: Path) -> None:
    """Write the network as TorchScript, which runs without the suite: raw in [-1, 1] to affinities of `kept`."""
    import torch

    class Affinities(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, raw):
            raw = raw.to(memory_format=torch.channels_last_3d)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_bfloat16, cache_enabled=False):
                logits = self.network(raw)["affs"]
            return torch.sigmoid(logits.float())[:, :, kept[0], kept[1], kept[2]]

    is_bfloat16 = config.prediction.precision == "bfloat16"
    with torch.no_grad():
        torch.jit.trace(Affinities().eval(), torch.rand((1, 1, *tile)), check_trace=False).save(str(path))


def threads() -> int:
    """Return the number of CPU threads of torch; the peer gets the same number."""
    import torch

    return torch.get_num_threads()


if __name__ == "__main__":
    main()
