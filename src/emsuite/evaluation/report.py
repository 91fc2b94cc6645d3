"""The report of one evaluation: a single HTML file that needs nothing beside it, neither network nor scripts.

What earlier stages cost, from the manifests they left and from Snakemake's benchmark tables.

The pictures of an evaluation as files, for pages other than its own report.

    curves/CURVE.svg
    sections/PLACE/PICTURE.jpg

Both folders lie in that of the scores.
"""

import base64
import csv
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from emsuite.common.errors import BadInput
from emsuite.common.files import remove, write_text
from emsuite.common.outputs import read_json
from emsuite.evaluation.plots import curves
from emsuite.evaluation.scores import METRICS, Metric
from emsuite.evaluation.section_images import COLORS, Section
from emsuite.evaluation.split_merge_errors import Fault, Mistake, mistake_shares
from emsuite.evaluation.threshold_sweep import Evaluation


@dataclass(frozen=True)
class Timing:
    """One stage's wall time in seconds, its peak memory in bytes (0: not known), and the machine it ran on."""

    stage: str
    seconds: float
    memory: int
    machine: str


def write_report(
    path: Path,
    evaluation: Evaluation,
    sections: Sequence[Section],
    faults: Sequence[Fault],
    timings: Sequence[Timing],
    provenance: dict[str, Any],
    title: str,
    look: Sequence[str],
) -> None:
    """Write the report: scores, curves over thresholds, pictures, the worst faults, timings and provenance.

    `look` is the command, in words, that shows the volumes; with `--position` after it, it shows a place in them.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"duration": _duration, "memory": _memory, "embed": _embed}
    template = environment.from_string(files("emsuite.evaluation").joinpath("report.html").read_text(encoding="utf-8"))
    text = template.render(
        title=title,
        evaluation=evaluation,
        best=evaluation.best,
        at_edge=_at_edge(evaluation),
        metrics=_table_metrics(evaluation),
        curves=curves(evaluation),
        sections=sections,
        mistakes=_legend(evaluation),
        faults={kind: [fault for fault in faults if fault.kind == kind] for kind in ("split", "merge")},
        look=shlex.join(["python", *look]),
        timings=timings,
        provenance=provenance,
        machine=machine_name(provenance["machine"]),
    )
    write_text(path, text)


def _at_edge(evaluation: Evaluation) -> bool:
    rows = evaluation.rows
    return len(rows) > 2 and evaluation.best["threshold"] in (rows[0]["threshold"], rows[-1]["threshold"])


def _table_metrics(evaluation: Evaluation) -> dict[str, Metric]:
    # the measured metrics: first those of regions, then those of skeletons, then edits
    rank = {"run_length": 1, "edits": 2}
    names = [name for name, metric in METRICS.items() if metric.heading and evaluation.best[name] is not None]
    return {name: METRICS[name] for name in sorted(names, key=lambda name: rank.get(METRICS[name].takes, 0))}


def _legend(evaluation: Evaluation) -> list[dict[str, Any]]:
    shares = mistake_shares(evaluation.table)
    meaning = {
        Mistake.SPLIT: ("split", "belongs to a piece cut off its neuron's main segment"),
        Mistake.MERGE: ("merge", "lies in a segment that is mostly another neuron"),
        Mistake.BOTH: ("both", "split and merge at once, as where a border lies elsewhere"),
        Mistake.UNSEGMENTED: ("no segment", "labelled, but in no segment"),
    }
    return [
        {"name": name, "means": means, "share": shares[kind], "color": "#{:02x}{:02x}{:02x}".format(*COLORS[kind])}
        for kind, (name, means) in meaning.items()
    ]


def _embed(content: bytes | str) -> str:
    kind = "image/svg+xml" if isinstance(content, str) else "image/jpeg"
    data = content.encode() if isinstance(content, str) else content
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _memory(count: int) -> str:
    return "–" if not count else f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


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


def write_pictures(folder: Path, evaluation: Evaluation, sections: Sequence[Section]) -> None:
    """Write curves over the thresholds and sections below `folder`, in place of those that are there."""
    for name in ("curves", "sections"):
        remove(folder / name)
        (folder / name).mkdir(parents=True)
    for name, svg in curves(evaluation).items():
        write_text(folder / "curves" / f"{_file_name(name)}.svg", svg)
    for section in sections:
        place = folder / "sections" / _file_name(section.place)
        place.mkdir()
        for name, jpeg in section.pictures.items():
            (place / f"{_file_name(name)}.jpg").write_bytes(jpeg)


def _file_name(words: str) -> str:
    return re.sub(r"[^\w.-]+", "_", words).strip("_")
