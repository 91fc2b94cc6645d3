"""Rows of the results: what was measured, ours, the peer's, their ratio and what it was to be."""

import json
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import click

from emsuite.common.files import write_json

HEADER = ("what", "ours", "beside", "ratio", "goal", "peak memory")

save = click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the rows there as well.")
peers = click.option("--peers/--no-peers", default=True, help="Whether the peers run as well.")


@dataclass(frozen=True)
class Row:
    """One line; `beside` names what ours is compared with, and `ratio` is ours over it or the other way, as `goal`."""

    what: str
    ours: str
    beside: str = ""
    ratio: float | None = None
    goal: str = ""
    memory: str = ""


def report(rows: Sequence[Row], json_path: Path | None) -> None:
    """Print the rows as a table, and write them to `json_path` if there is one."""
    print(as_markdown(rows))
    if json_path is not None:
        write_json(json_path, [asdict(row) for row in rows])


def read(json_path: Path) -> list[Row]:
    """The rows that `report` wrote."""
    return [Row(**row) for row in json.loads(json_path.read_text())]


def as_markdown(rows: Sequence[Row]) -> str:
    """The rows as a table that people read as it stands, too."""
    cells = [HEADER, *(tuple(_text(value) for value in astuple(row)) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADER))]
    lines = ["| " + " | ".join(text.ljust(n) for text, n in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "| " + " | ".join("-" * n for n in widths) + " |", *lines[1:]])


def seconds(value: float) -> str:
    """A duration in the unit that suits it."""
    return f"{value:.1f} s" if value >= 10 else f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def memory(number: float) -> str:
    """Bytes as MiB or GiB."""
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"


def rate(voxels: float, duration: float) -> str:
    """Voxels per second."""
    return f"{voxels / duration / 1e6:.3g} Mvoxel/s"


def _text(value: object) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
