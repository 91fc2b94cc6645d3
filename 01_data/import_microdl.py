#!/usr/bin/env python
"""Write this suite's preprocess.yaml and network.yaml from microDL's configurations."""

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
python 01_data/import_microdl.py config_preprocess.yml config_train.yml --out mine/from_microdl
python 01_data/import_microdl.py config_train.yml --out mine/from_microdl --steps-per-epoch 250
"""
)
@click.argument("configs", type=options.FILE, nargs=-1, required=True, metavar="CONFIG.yml...")
@click.option("--out", type=options.FILE, required=True, metavar="FOLDER", help="The folder to write, a network's.")
@click.option(
    "--steps-per-epoch",
    type=click.IntRange(1, 10**6),
    default=100,
    help="Iterations of an epoch: training tiles divided by the size of a batch.",
)
def main(configs: tuple[Path, ...], out: Path, steps_per_epoch: int) -> None:
    """Translate CONFIG.yml of microDL's preprocessing, of its training, or one of each, which belong together.

    Writes preprocess.yaml, network.yaml and not_carried_over.txt. Prints each key that is not carried over as it is,
    and why.
    """
    from emsuite.published.microdl.convert import translate, write_translation

    result = translate(configs, steps_per_epoch)
    write_translation(result, out, configs)
    for note in result.notes.notes:
        click.echo(note)
    click.echo(f"{out}: {', '.join(result.files)}, and {len(result.notes.notes)} notes in not_carried_over.txt")


if __name__ == "__main__":
    main()
