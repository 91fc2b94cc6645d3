#!/usr/bin/env python
"""Prepare a plate of light microscopy: flat field, resize, masks, weights, clip, CLAHE, statistics, tiles, split."""

import json
import os
from pathlib import Path
from typing import Any

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
python 01_data/preprocess.py config/preprocess.yaml
python 01_data/preprocess.py config/preprocess.yaml --input mine/plate.zarr --output mine/ready
python 01_data/preprocess.py config/preprocess.yaml --set normalize.scope=position --set masks.method=unimodal
"""
)
@click.argument("config", type=options.FILE, metavar="CONFIG.yaml")
@click.option(
    "--input", "source", type=options.FILE, help="A plate or a folder of frames, in place of the key `input`."
)
@click.option("--output", "out", type=options.FILE, help="The folder to write, in place of the key `output`.")
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Set a key of docs/microdl.md.")
@options.threads
def main(config: Path, source: Path | None, out: Path | None, overrides: tuple[str, ...], workers: int) -> None:
    """Write the preprocessed plate, its masks, statistics and split into the folder that CONFIG.yaml names.

    The same command continues a stopped run. The result does not depend on --workers.
    """
    from emsuite.common.settings import load
    from emsuite.plates.preprocess import preprocess
    from emsuite.plates.settings import PreprocessSettings

    paths = [f"{key}={json.dumps(str(path))}" for key, path in (("input", source), ("output", out)) if path]
    settings = load(PreprocessSettings, config, overrides=[*overrides, *paths])
    if not preprocess(settings, workers):
        click.echo(f"{settings.output}: already there, made with the same settings")
        return
    for step in json.loads((settings.output / "preprocessing.json").read_text())["steps"]:
        click.echo(f"{step['step']}: {summary(step['result']) if step['done'] else step['why']}")


def summary(result: dict[str, Any]) -> str:
    """Return what a step found, on one line: of lists their lengths, `preprocessing.json` has the rest."""
    return json.dumps({key: f"{len(value)} listed" if isinstance(value, list) else value
                       for key, value in result.items()})  # fmt: skip


if __name__ == "__main__":
    main()
