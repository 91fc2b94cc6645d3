#!/usr/bin/env python
"""Make results ready to be published: remove what their records tell of the user and the machine."""

from pathlib import Path

import click

from emsuite.cli import options
from emsuite.cli.command import stage


@stage(
    example="""
cp -r results/fib25/small release
cp -r 02_train/fib25/small/checkpoints release/checkpoints
python 04_segment/release.py release
"""
)
@click.argument("folders", metavar="FOLDER ...", nargs=-1, required=True, type=options.FILE)
def main(folders: tuple[Path, ...]) -> None:
    """Remove the private part of every record in each FOLDER, which should be a copy of the results.

    Records are manifests, scores.json and checkpoints. Host names also leave the names of TensorBoard's files. Outputs
    keep their bytes. Prints each file that was changed, and those that it cannot clean.
    """
    from emsuite.published.release import release

    for folder in folders:
        changed, unclean = release(folder)
        for path in changed:
            click.echo(f"{path}: cleaned")
        for path in unclean:
            click.echo(f"{path}: may tell of user and machine; look at it, or remove it")


if __name__ == "__main__":
    main()
