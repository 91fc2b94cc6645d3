#!/usr/bin/env python
"""Make results ready to be published: remove what their records tell of the user and the machine."""

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
python 04_segment/release.py release
"""
)
@click.argument("folders", metavar="FOLDER ...", nargs=-1, required=True, type=options.FILE)
def main(folders: tuple[Path, ...]) -> None:
    """Remove the private part of every record in each FOLDER, a copy of results and checkpoints.

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
