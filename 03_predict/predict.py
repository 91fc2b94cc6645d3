#!/usr/bin/env python
"""Predict affinities and/or LSDs of a volume with a trained network."""

from pathlib import Path

import click

from emsuite.cli import options
from emsuite.cli.command import stage
from emsuite.common.process import kept_memory, share_memory


@stage(
    example="""
python 03_predict/predict.py 02_train/fib25/small --raw VOLUME.zarr/volumes/raw --out prediction.zarr
python 03_predict/predict.py 02_train/fib25/mtlsd --raw VOLUME.zarr/volumes/raw --roi 1040:1280,:,: --out part.zarr
"""
)
@options.network
@click.option("--raw", "raw_path", type=options.FILE, required=True, help="Raw array, uint8, as V.zarr/volumes/raw.")
@click.option("--out", type=options.FILE, required=True, help="Zarr to write affs and/or lsds to, uint8.")
@click.option("--iteration", type=click.IntRange(min=1), help="Checkpoint to use (default: the newest).")
@click.option("--roi", help="Predict z0:z1,y0:y1,x0:x1 (nm) alone, as 1040:1280,:,: (default: the whole volume).")
@click.option("--valid", is_flag=True, help="Predict only what has real context; by default it is mirrored.")
@click.option("--input-shape", type=options.Voxels(), help="Largest tile, voxels (default: the network's, or less).")
@click.option("--workers", type=click.IntRange(min=1), help="Processes (default: one for each GPU, or one on the CPU).")
@click.option("--tile", type=click.Choice(["stride", "original"]), default="stride", show_default=True,
              help="original: the published experiments' tiles, zeros around the volume, for their bytes.")  # fmt: skip
@options.device
@options.overrides
def main(
    network_dir: Path,
    raw_path: Path,
    out: Path,
    iteration: int | None,
    roi: str | None,
    valid: bool,
    input_shape: tuple[int, ...] | None,
    workers: int | None,
    tile: str,
    device: str,
    overrides: tuple[str, ...],
) -> None:
    """Write predictions of the network in NETWORK_DIR as (C, Z, Y, X) uint8, 0 to 255 standing for 0 to 1."""
    from emsuite.common.device import count_workers, memory_to_use, pick_device
    from emsuite.config.network import load_network
    from emsuite.data.raw import open_raw
    from emsuite.io.volume import format_roi, parse_roi
    from emsuite.prediction.predict import check_name, earlier_input_shape, predict_to
    from emsuite.prediction.predictor import input_shape_for, make_predictor, valid_roi
    from emsuite.prediction.tiling import BY_STRIDE, Original
    from emsuite.training.checkpoint import checkpoint_path, digest, load_trained

    share_memory()
    if tile == "original" and input_shape is not None:
        raise click.UsageError("--input-shape: original tiles are the network's own; leave out one of the two")
    tiling = Original(valid) if tile == "original" else BY_STRIDE
    config = load_network(network_dir, overrides)
    check_name(out)
    raw = open_raw(raw_path, config.voxel_size)
    network, checkpoint = load_trained(network_dir, config, iteration)
    wanted = raw.roi if roi is None else parse_roi(roi, raw)
    wanted = valid_roi(network, raw, wanted, tiling) if valid else wanted
    where = pick_device(device)
    workers = count_workers(where, workers)
    settings = {"network": config.model_dump(mode="json"), "iteration": checkpoint.iteration,
                "weights": digest(checkpoint.best_weights), "raw": str(raw.path),
                "roi": format_roi(wanted), "tiles": tiling.name}  # fmt: skip
    shape = input_shape or earlier_input_shape(out, settings) or input_shape_for(
        network, tiling, memory_to_use(where, workers), raw, wanted)  # fmt: skip
    predictor = make_predictor(network, where, shape, raw, wanted, tiling)
    inputs = {"checkpoint": checkpoint_path(network_dir, checkpoint.iteration), "raw": raw.path}
    with kept_memory():
        if not predict_to(out, settings | predictor.settings, inputs, predictor, raw, wanted, workers):
            click.echo(f"{out}: already there, made with the same settings")


if __name__ == "__main__":
    main()
