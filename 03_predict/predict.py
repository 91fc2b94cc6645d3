#!/usr/bin/env python
"""Predict a volume with a trained network: affinities, LSDs, or the look of another domain."""

import os
from pathlib import Path
from typing import Any

try:
    import click

    from emsuite.cli import options
    from emsuite.cli.command import stage
    from emsuite.common.process import kept_memory, share_memory
except ModuleNotFoundError as error:
    if "EMSUITE_IMAGE" in os.environ:  # the image tells more
        raise
    raise SystemExit(f"error: {error}; expected the Python of .venv: . .venv/bin/activate, see README.md") from None

PROJECT = Path(__file__).resolve().parents[1]


@stage(
    example="""
cd 02_train/fib25/small && python ../../../03_predict/predict.py 4500
python 03_predict/predict.py 02_train/fib25/mtlsd --raw VOLUME.zarr/volumes/raw --roi 1040:1280,:,: --out part.zarr
"""
)
@options.network_and("iteration")
@click.option("--raw", "raw_path", type=options.FILE, help="Raw array, as V.zarr/volumes/raw. [default: test split]")
@options.stated_grid("raw_path")
@click.option("--out", type=options.FILE, help="Zarr, or HDF5 file. [default: results/DATASET/NETWORK/ITERATION/PART]")
@click.option("--iteration", type=click.IntRange(min=1), help="Checkpoint to use (default: the newest).")
@click.option("--roi", help="Predict only z0:z1,y0:y1,x0:x1 (nm), as 1040:1280,:,: (default: the whole volume).")
@click.option("--input-shape", type=options.VOXELS, help="Largest tile, voxels (default: by memory).")
@click.option("--workers", type=click.IntRange(min=1), help="Processes (default: one for each GPU, or one on the CPU).")
@options.direction
@options.tiling_options
@options.request_options
@options.device
@options.overrides
def main(
    network_dir: Path,
    raw_path: Path | None,
    out: Path | None,
    iteration: int | None,
    roi: str | None,
    input_shape: tuple[int, ...] | None,
    workers: int | None,
    direction: Any,
    tiles: dict[str, Any],
    asked: Any,
    device: str,
    overrides: tuple[str, ...],
) -> None:
    """Predict --raw, or else the test split, with the network in NETWORK_DIR: (C, Z, Y, X), 0 to 255 for 0 to 1."""
    from emsuite.common.device import count_workers, pick_device
    from emsuite.config.network import load_network
    from emsuite.prediction.blending import make_tiling
    from emsuite.prediction.output_file import predict_into
    from emsuite.prediction.predictor import load_frozen_config, make_predictor
    from emsuite.prediction.region import predicted_roi
    from emsuite.prediction.settings import prediction_settings
    from emsuite.prediction.tile_size import tile_for
    from emsuite.training.transfer.trained import load_for_prediction
    from emsuite.workflow.defaults import prediction_paths

    share_memory()
    config, where = load_network(network_dir, overrides), pick_device(device)
    raw_path, roi, out = prediction_paths(PROJECT, network_dir, config, iteration, raw_path, roi, out, direction)
    made, workers = load_for_prediction(network_dir, config, iteration, direction), count_workers(where, workers)
    network, raw, margin = made.network, made.reads.open(raw_path), config.prediction.original_margin
    tiling = make_tiling(**tiles, input_shape=input_shape, margin=margin, is_local=made.is_local)
    region, request = predicted_roi(network, raw, roi, tiling, tiles["valid"]), asked(raw)
    settings = prediction_settings(config, made.iteration, made.digest, raw, region, tiling,
                                   made.checkpoint.last_record) | made.settings | request.settings  # fmt: skip
    shape = input_shape or tile_for(out, settings, network, config, tiling, raw, region, where, workers)
    inputs = {"checkpoint": made.path, "raw": raw.path} | request.inputs
    predictor = make_predictor(network, config, where, shape, raw, region, tiling,
                               load_frozen_config(network_dir, config), *made.reads.scales)  # fmt: skip
    if not kept_memory()(predict_into)(out, settings, inputs, predictor, raw, region, workers, request):
        click.echo(f"{out}: already there, made with the same settings")


if __name__ == "__main__":
    main()
