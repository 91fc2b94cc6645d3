#!/usr/bin/env python
"""Predict the images of a plate with a trained network: fluorescence, stains, masks."""

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

PROJECT = Path(__file__).resolve().parents[1]


@stage(
    example="""
python 03_predict/predict_images.py 02_train/microdl/small
python 03_predict/predict_images.py 02_train/microdl/small --plate mine/ready --part test --out mine/predicted.zarr
python 03_predict/predict_images.py 02_train/microdl/small --tile 1,512,512 --overlap 0,64,64 --copies flips --variance
"""
)
@options.network_and("iteration")
@click.option("--plate", type=options.FILE, help="Folder of a preprocessed plate, or a plate. [default: the network's]")
@click.option("--out", type=options.FILE, help="The plate to write. [default: results/DATASET/NETWORK/ITERATION/...]")
@click.option("--iteration", type=click.IntRange(min=1), help="Checkpoint to use (default: the newest).")
@click.option("--part", type=click.Choice(["train", "val", "test"]), help="Positions of this part of split.json alone.")
@click.option("--positions", metavar="A,B,...", default="", help="These alone, as A/1/7 or 7 (default: all).")
@click.option("--tile", type=options.VOXELS, help="Voxels of a tile, z,y,x (default: images are predicted whole).")
@click.option("--overlap", type=options.COUNTS, default="0,0,0", help="Voxels that tiles have in common, z,y,x.")
@click.option("--blend", type=click.Choice(["linear", "gaussian"]), default="linear", help="Weights in overlaps.")
@click.option("--copies", type=click.Choice(["none", "flips", "rotations"]), default="none",
              help="Predict the mean over mirrored copies (4), turned ones too (8).")  # fmt: skip
@click.option("--variance", is_flag=True, help="Write the variance over the copies, as further channels.")
@click.option("--format", "kind", type=click.Choice(["zarr", "tiff", "npy", "png", "csv"]), default="zarr",
              help="OME-Zarr; frames, which PNG rounds by scale.json; csv of networks to vectors.")  # fmt: skip
@options.threads
@options.device
@options.overrides
def main(
    network_dir: Path, plate: Path | None, out: Path | None, iteration: int | None, part: str | None, positions: str,
    tile: tuple[int, int, int] | None, overlap: tuple[int, int, int], blend: str, copies: str, variance: bool,
    kind: str, workers: int, device: str, overrides: tuple[str, ...],
) -> None:  # fmt: skip
    """Predict a plate with the network in NETWORK_DIR: the same positions, its target channels, in grey values.

    The same command continues a stopped run. The result does not depend on --workers.
    """
    from emsuite.common.device import pick_device
    from emsuite.config.network import load_network
    from emsuite.prediction.plate.forward import Tiles
    from emsuite.prediction.plate.predict_plate import Asked, plate_prediction
    from emsuite.training.checkpoint import checkpoint_path, digest
    from emsuite.training.trained_network import load_trained
    from emsuite.training.volumes import plate_folder
    from emsuite.workflow.defaults import predicted_plate

    if variance and copies == "none":
        raise click.UsageError("--variance is that over --copies, expected flips or rotations")
    config = load_network(network_dir, overrides)
    (network, checkpoint), where = load_trained(network_dir, config, iteration), pick_device(device)
    plate = plate or plate_folder(config, PROJECT)
    out = out or predicted_plate(PROJECT, config, checkpoint.iteration, kind)
    chosen = tuple(filter(None, positions.split(",")))
    asked = Asked(plate, out, part, chosen, Tiles(tile, overlap, blend), copies, variance, kind)
    prediction = plate_prediction(config, network, checkpoint.images, where, asked)
    settings = asked.settings(config) | {"iteration": checkpoint.iteration, "weights": digest(checkpoint.best_weights)}
    inputs = {"checkpoint": checkpoint_path(network_dir, checkpoint.iteration), "plate": plate}
    if not prediction.write(settings, inputs, workers if where.type == "cpu" else 1):
        click.echo(f"{out}: already there, made with the same settings")


if __name__ == "__main__":
    main()
