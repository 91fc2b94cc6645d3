"""Rows of the results: the measured work, our figure, the one beside it, their ratio and its goal."""

import json
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import click

from emsuite.common.files import write_json

HEADER = ("what", "ours", "beside", "ratio", "goal", "peak memory")

save = click.option("--json", "json_path", type=click.Path(path_type=Path), help="File to write the rows to.")
peers = click.option("--peers/--no-peers", default=True, help="Whether to run the peers too.")


@dataclass(frozen=True)
class Row:
    """One row. `beside` is the figure that `ours` is compared with; `goal` says whether a large `ratio` is good."""

    what: str
    ours: str
    beside: str = ""
    ratio: float | None = None
    goal: str = ""
    memory: str = ""


def report(rows: Sequence[Row], json_path: Path | None) -> None:
    """Print the rows as a table, and write them to `json_path` if it is not None."""
    print(as_markdown(rows))
    if json_path is not None:
        write_json(json_path, [asdict(row) for row in rows])


def read(json_path: Path) -> list[Row]:
    """Return the rows that `report` wrote."""
    return [Row(**row) for row in json.loads(json_path.read_text())]


def as_markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table with aligned columns."""
    cells = [HEADER, *(tuple(_text(value) for value in astuple(row)) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADER))]
    lines = ["| " + " | ".join(text.ljust(n) for text, n in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "| " + " | ".join("-" * n for n in widths) + " |", *lines[1:]])


def seconds(value: float) -> str:
    """Return a duration as text, in s or ms."""
    return f"{value:.1f} s" if value >= 10 else f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def memory(number: float) -> str:
    """Return a number of bytes as text, in MiB or GiB."""
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"


def rate(voxels: float, duration: float) -> str:
    """Return voxels per second as text."""
    return f"{voxels / duration / 1e6:.3g} Mvoxel/s"


def _text(value: object) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
