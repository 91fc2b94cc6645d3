#!/usr/bin/env python
"""Make frames of light microscopy to try a pipeline on: synthetic label-free cells, or a real pair of stains."""

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
python 01_data/synthesize_plate.py mine/frames
python 01_data/synthesize_plate.py mine/frames --set positions=20 --set size=256 --set seed=7
python 01_data/synthesize_plate.py mine/stains --kind stains
"""
)
@click.argument("out", type=options.FILE, metavar="FRAMES")
@click.option("--kind", type=click.Choice(["label-free", "stains"]), default="label-free", help="The set to make.")
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Set a key of docs/microdl.md.")
def main(out: Path, kind: str, overrides: tuple[str, ...]) -> None:
    """Write FRAMES, a folder of PNG files with their frames_meta.csv. The same options give the same bytes."""
    from emsuite.common.settings import load
    from emsuite.plates.synthesize import KINDS, synthesize_frames

    if not synthesize_frames(kind, load(KINDS[kind][0], overrides=overrides), out):
        click.echo(f"{out}: already there, made with the same settings")
        return
    click.echo(f"{out}: {len(list(out.glob('*.png')))} frames of {kind}, channels {', '.join(KINDS[kind][2])}")


if __name__ == "__main__":
    main()
