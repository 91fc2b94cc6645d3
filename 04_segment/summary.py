#!/usr/bin/env python
"""Print the scores of a finished run, and how to look at its results."""

import os
from pathlib import Path

try:
    import click

    from emsuite.cli import options
    from emsuite.cli.command import stage
    from emsuite.evaluation.summary import find_scored, summary
except ModuleNotFoundError as error:
    if "EMSUITE_IMAGE" in os.environ:  # the image tells more
        raise
    raise SystemExit(f"error: {error}; expected the Python of .venv: . .venv/bin/activate, see README.md") from None


@stage(example="python 04_segment/summary.py results/phantom/small")
@click.argument("results", type=options.FILE)
def main(results: Path) -> None:
    """Print scores, paths of report and segmentation, and the command to view them, for each volume below RESULTS.

    Where different weights or settings made the results, each one names its own.
    """
    click.echo(summary(find_scored(results), ".venv/bin/python 04_segment/view.py"))


if __name__ == "__main__":
    main()
