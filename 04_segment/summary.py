#!/usr/bin/env python
"""Say what a finished run found, and how to look at it."""

from pathlib import Path

import click

from emsuite.cli import options
from emsuite.cli.command import stage
from emsuite.evaluation.summary import summary


@stage(example="python 04_segment/summary.py results/phantom/small")
@click.argument("results", type=options.FILE)
def main(results: Path) -> None:
    """Print the scores of every volume below RESULTS, where report and segmentation lie, and how to open them."""
    click.echo(summary(results, ".venv/bin/python 04_segment/view.py"))


if __name__ == "__main__":
    main()
