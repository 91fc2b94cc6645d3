#!/usr/bin/env python
"""Score predicted images against their targets: metrics_xy.csv and other orientations, scores.json, report.html."""

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
python 04_segment/evaluate_images.py mine/predicted.zarr --target mine/ready/plate.zarr --out mine/scores
python 04_segment/evaluate_images.py mine/predicted.zarr --target mine/ready/plate.zarr --out mine/scores \\
    --split mine/ready/split.json --part test --masks --baselines --orientations xy,xz,xyz
python 04_segment/evaluate_images.py frames/ --target plate.zarr --target-channels nuclei --metrics r2,ssim --out scores
"""
)
@click.argument("prediction", type=options.FILE)
@click.option("--target", type=options.FILE, required=True, metavar="PLATE", help="The true images.")
@click.option("--target-channels", metavar="A,B,...", help="Of the target, one for each predicted channel, by name or "
              "number. [default: those with the prediction's names]")  # fmt: skip
@click.option("--input-channels", metavar="A,B,...", help="Of the target's plate, shown beside. [default: the others]")
@click.option("--masks", is_flag=True, help="Score within the target's labels/foreground as well.")
@click.option("--masks-from", type=options.FILE, metavar="PLATE", help="The same, with masks from elsewhere.")
@click.option("--metrics", metavar="A,B,...", help="Of r2, pearson, ssim, ms_ssim, dice, accuracy, mse, mae. "
              "[default: all]")  # fmt: skip
@click.option("--orientations", metavar="A,B,...", default="xy", help="Of xy, xz, yz, xyz; the first is ranked.")
@click.option("--positions", metavar="A,B,...", help="Score these alone, as A/1/7 or 7. [default: all]")
@click.option("--split", type=options.FILE, metavar="FILE", help="Score the positions of a part of a split.json.")
@click.option("--part", type=click.Choice(["train", "val", "test"]), default="test", help="The part of --split.")
@click.option("--baselines", is_flag=True, help="Score the inputs as they are, and a line fitted to them (to the "
              "split's training positions, or else to those that are scored).")  # fmt: skip
@click.option("--out", type=options.FILE, required=True, metavar="FOLDER", help="The folder to write.")
@options.threads
def main(
    prediction: Path, target: Path, target_channels: str | None, input_channels: str | None, masks: bool,
    masks_from: Path | None, metrics: str | None, orientations: str, positions: str | None, split: Path | None,
    part: str, baselines: bool, out: Path, workers: int,
) -> None:  # fmt: skip
    """Score PREDICTION, a plate of OME-Zarr or a folder of frames, against the same positions of --target.

    Writes metrics_xy.csv (a row for each image), scores.json (the means) and report.html.
    """
    from emsuite.evaluation.images.evaluate import Asked, evaluate_images
    from emsuite.evaluation.images.pairs import Chosen
    from emsuite.evaluation.summary import image_headlines

    if masks and masks_from:
        raise click.UsageError("--masks and --masks-from exclude each other")
    if positions and split:
        raise click.UsageError("--positions and --split exclude each other")
    names = {"target_channels": target_channels, "input_channels": input_channels, "positions": positions}
    chosen = Chosen(**{key: tuple(text.split(",")) for key, text in names.items() if text is not None},
                    masks=target if masks else masks_from)  # fmt: skip
    more = {"metrics": tuple(metrics.split(","))} if metrics is not None else {}
    asked = Asked(orientations=tuple(orientations.split(",")), baselines=baselines, split=split, part=part, **more)
    for line in image_headlines(evaluate_images(prediction, target, out, chosen, asked, workers)):
        click.echo(line)
    click.echo(out / "report.html")


if __name__ == "__main__":
    main()
