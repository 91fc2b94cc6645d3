"""What earlier stages cost, from the manifests they left and from Snakemake's benchmark tables."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emsuite.errors import BadInput
from emsuite.output import read_json


@dataclass(frozen=True)
class Timing:
    """One stage's wall time in seconds, its peak memory in bytes (0: not known), and the machine it ran on."""

    stage: str
    seconds: float
    memory: int
    machine: str


def read_timings(paths: Iterable[Path]) -> list[Timing]:
    """Read `*.manifest.json` (written beside outputs) and `*.tsv` (Snakemake's `benchmark:`) files, in the order given.

    Raises BadInput for a file that is missing or neither.
    """
    return [timing for path in paths for timing in _read(Path(path))]


def _read(path: Path) -> list[Timing]:
    if not path.is_file():
        raise BadInput(f"{path}: no such file; expected a manifest.json or a benchmark.tsv")
    try:
        return _read_benchmark(path) if path.suffix == ".tsv" else [_read_manifest(path)]
    except (KeyError, TypeError, ValueError):
        raise BadInput(f"{path}: is neither a manifest of this suite nor a Snakemake benchmark table") from None


def _read_manifest(path: Path) -> Timing:
    manifest: dict[str, Any] = read_json(path)
    memory, machine = manifest["peak_memory"], manifest["machine"]
    stage = Path(manifest["command"][0]).stem
    return Timing(
        stage, float(manifest["seconds"]), max(memory["process"], memory["largest_child"]), machine_name(machine)
    )


def _read_benchmark(path: Path) -> list[Timing]:
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [Timing(path.stem, float(row["s"]), _megabytes(row["max_rss"]), "") for row in rows]


def _megabytes(text: str) -> int:
    # a job that ends before it is looked at has "NA" or "-"
    return int(float(text) * 2**20) if text.replace(".", "", 1).isdigit() else 0


def machine_name(machine: dict[str, Any]) -> str:
    """A machine of a provenance record in a few words."""
    return f"{machine['host']}, {machine['cpus']} CPUs" + (f", {machine['gpu']}" if machine["gpu"] else "")
