#!/usr/bin/env python
"""Time a prediction from zarr to zarr, beside its forward passes alone and beside gunpowder's Scan."""

import itertools
import json
import math
import runpy
import tempfile
from pathlib import Path

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
    device: str,
    repeats: int,
    goal: str,
    overrides: tuple[str, ...],
    peers: bool,
    json_path: Path | None,
) -> None:
    """Predict with the network in NETWORK_DIR (default: fib25/small) and fresh weights, as 03_predict/predict.py does.

    The forward passes alone are the time of one pass, with raw on the device, times the number of tiles. The peer gets
    the same network and tiles.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder, config = copy_network(network, Path(temporary), overrides)
        save_untrained(folder, config)
        raw = mirrored(read(volume, synthetic)[0], extent)
        path = write(Path(temporary) / "volume.zarr", raw, None, config.voxel_size) / "volumes/raw"
        out = Path(temporary) / "prediction.zarr"
        begun = time_start(folder, config, path, input_shape, device) if device == "cuda" else None
        warm_up = 0 if begun else 1
        ours = measure(lambda: predict(folder, path, out, input_shape, device), repeats, warm_up, device)
        tile, count = tiles_of(out, folder, config, raw.shape)
        bare = time_forward(folder, config, tile, device)
        forward = bare.wall * count
        name = f"prediction, {config.dataset} {config.network}, {config.prediction.precision}, {count} tiles of "
        name += "x".join(map(str, tile))
        used = peak(ours, device)
        took = f"{seconds(ours.wall)}, {rate(raw.size, ours.wall)}"
        goals = (">= 0.9" if device == "cpu" else ">= 0.8") + (f", {goal}" if goal else "")
        rows = [Row(name, took, f"forward alone {seconds(forward)}", forward / ours.wall, goals, used)]
        if begun:
            wall, rest = ours.wall - begun.wall, raw.size * (count - 1) / count
            took, share = f"{seconds(wall)}, {rate(rest, wall)}", bare.wall * (count - 1) / wall
            name += f", without the {seconds(begun.wall)} in which it starts and predicts one"
            rows.append(Row(name, took, rows[0].beside, share, goals))
        if peers:
            theirs = ask_scan(folder, config, path, tile, Path(temporary))
            peaks = f"{memory(ours.memory)} / {memory(theirs.memory)}"
            rows.append(Row(name, took, f"gunpowder {seconds(theirs.wall)}", theirs.wall / ours.wall, "", peaks))
    report(rows, json_path)


def time_start(folder: Path, config, raw: Path, input_shape, device: str) -> Cost:
    """Return the cost of predicting one tile after a warm-up: the part that does not grow with the volume."""
    from emsuite.models.receptive_field import receptive_field

    tile = receptive_field(config.unet).step(input_shape or config.prediction.input_shape)
    roi = ",".join(f"0:{n * size}" for n, size in zip(tile, config.voxel_size, strict=True))
    numbers = itertools.count()

    def one() -> None:
        predict(folder, raw, folder / f"start_{next(numbers)}.zarr", input_shape, device, "--roi", roi)

    return measure(one, 1, 1, device)


def predict(folder: Path, raw: Path, out: Path, input_shape, device: str, *more: str) -> None:
    """Run 03_predict/predict.py in this process, on at most one GPU."""
    out.with_name(out.name + ".manifest.json").unlink(missing_ok=True)
    command = runpy.run_path(str(PREDICT))["main"]
    words = [folder, "--raw", raw, "--out", out, "--device", device, "--workers", 1, *more]
    words += ["--input-shape", ",".join(map(str, input_shape))] if input_shape else []
    try:
        command.main([str(word) for word in words])
    except SystemExit as end:
        if end.code:
            raise RunFailed(f"{PREDICT.name}: ended with {end.code}, see above") from None


def tiles_of(out: Path, folder: Path, config, shape) -> tuple[tuple[int, ...], int]:
    """Return the input shape of the prediction's tiles, and the number of tiles that cover the volume."""
    from emsuite.models.receptive_field import receptive_field

    manifest = json.loads(out.with_name(out.name + ".manifest.json").read_text())
    tile = tuple(manifest["settings"]["input_shape"])
    step = receptive_field(config.unet).step(tile)
    return tile, math.prod(-(-n // width) for n, width in zip(shape, step, strict=True))


def time_forward(folder: Path, config, tile, device: str) -> Cost:
    """Return the cost of one forward pass, with raw and predictions on the device."""
    import torch

    from emsuite.common.device import computing_in

    network, where = trained(folder, config).to(device), torch.device(device)
    raw = torch.rand((1, 1, *tile), device=where).to(memory_format=torch.channels_last_3d)

    def forward() -> None:
        with torch.inference_mode(), computing_in(where, config.prediction.precision):
            network(raw)

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
