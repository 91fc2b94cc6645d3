"""Write the report of an evaluation: one HTML file that works without a network and without scripts.

Its pictures are also written as files, for other pages:

    curves/CURVE.svg
    sections/SECTION/PICTURE.jpg

The report lists the time and memory of earlier stages (`Timing`), which are read from the manifests of the stages and
from Snakemake's benchmark tables.
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

from emsuite.common.documents import read_json, read_text
from emsuite.common.errors import BadInput, printable, without_secrets
from emsuite.common.files import files_below, is_there, remove, write_json, write_text
from emsuite.common.provenance import published, without_paths
from emsuite.common.state.ownership import foreign_beside, is_own, keep_edited, mark_path, wrote
from emsuite.evaluation.metrics import METRICS, Metric
from emsuite.evaluation.plots import curves
from emsuite.evaluation.section_images import COLORS, Section
from emsuite.evaluation.split_merge_errors import SplitMergeError, VoxelError, voxel_error_shares
from emsuite.evaluation.threshold_sweep import Evaluation

_LEGEND = {
    VoxelError.SPLIT: ("split", "belongs to a piece cut off its neuron's main segment"),
    VoxelError.MERGE: ("merge", "lies in a segment that is mostly another neuron"),
    VoxelError.BOTH: ("both", "split and merge at once, as where a border lies elsewhere"),
    VoxelError.UNSEGMENTED: ("no segment", "labelled, but in no segment"),
}


_PICTURES = {"curves": ".svg", "sections": ".jpg"}
"""The folders of pictures, and the ending of the files in them."""


@dataclass(frozen=True)
class Timing:
    """The wall time (seconds; None: unknown) of a stage, its peak memory (bytes; 0: unknown), and its machine."""

    stage: str
    seconds: float | None
    memory: int
    machine: str


def write_report(
    path: Path,
    evaluation: Evaluation,
    sections: Sequence[Section],
    errors: Sequence[SplitMergeError],
    timings: Sequence[Timing],
    provenance: dict[str, Any],
    title: str,
    viewer: Sequence[str],
) -> None:
    """Write the report. It may be published: it leaves out the private part of `provenance`.

    Args:
        path: The HTML file.
        evaluation: The scores, from which the curves are drawn as well.
        sections: Pictures of sections through the volume.
        errors: The largest errors, located.
        timings: Time and memory of earlier stages.
        provenance: The provenance record of the evaluation.
        title: The heading.
        viewer: The words of a command that shows the volumes; a position (nm, z,y,x) is appended to it.
    """
    secret_free = without_secrets(viewer)
    public = without_paths(secret_free)
    text = render(
        "report.html",
        provenance,
        title=title,
        evaluation=evaluation,
        best=evaluation.best,
        at_edge=_best_is_at_edge(evaluation),
        metrics=_table_metrics(evaluation),
        curves=curves(evaluation),
        sections=sections,
        legend=_legend(evaluation),
        errors={kind: [error for error in errors if error.kind == kind] for kind in ("split", "merge")},
        viewer=shlex.join(public),
        viewer_lacks_folders=any(
            not is_there(Path(new)) for new, old in zip(public, secret_free, strict=True) if new != old
        ),
        timings=timings,
    )
    write_text(path, text)


def render(template: str, provenance: dict[str, Any], **content: Any) -> str:
    """Return the text of a report.

    Args:
        template: The name of a template beside this module.
        provenance: The provenance record; its private part is left out.
        content: What the template names.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        finalize=_printable,
    )  # fmt: skip
    environment.filters |= {"duration": _duration, "memory": _memory, "embed": _embed}
    about = {"provenance": published(provenance), "machine": machine_name(provenance["machine"])}
    return environment.get_template(template).render(**about, **content)


def _template(name: str) -> str:
    return files("emsuite.evaluation").joinpath(name).read_text(encoding="utf-8")


def write_pictures(folder: Path, evaluation: Evaluation, sections: Sequence[Section]) -> None:
    """Write the curves over the thresholds and the sections below `folder`; replace those of an earlier run.

    Raises:
        BadInput: As `check_pictures`.
    """
    check_pictures(folder)
    for name in _PICTURES:
        keep_edited(folder / name, read_json(mark_path(folder / name)), mark_path(folder / name))
        remove(folder / name)
        (folder / name).mkdir(parents=True)
    for name, svg in curves(evaluation).items():
        write_text(folder / "curves" / f"{_file_name(name)}.svg", svg)
    for section in sections:
        section_folder = folder / "sections" / _file_name(section.caption)
        section_folder.mkdir()
        for name, jpeg in section.pictures.items():
            (section_folder / f"{_file_name(name)}.jpg").write_bytes(jpeg)
    for name in _PICTURES:
        write_json(mark_path(folder / name), wrote(folder / name))


def check_pictures(folder: Path) -> None:
    """Raise BadInput if `curves` or `sections` in a folder hold something else than pictures of an earlier run."""
    for name, suffix in _PICTURES.items():
        record = read_json(mark_path(folder / name))
        # earlier versions left no record
        foreign = None if record else next((f for f in files_below(folder / name) if f.suffix != suffix), None)
        if foreign or not is_own(folder / name, record) or foreign_beside(folder / name, record):
            raise BadInput(f"{folder / name}: holds something else than pictures of this suite; expected another --out")


def read_timings(paths: Iterable[Path]) -> list[Timing]:
    """Read the timings of stages, in the order of `paths`.

    Args:
        paths: Manifests (`*.manifest.json`, beside each output), or tables of Snakemake's `benchmark:` (`*.tsv`).

    Raises:
        BadInput: A file is missing, or is neither.
    """
    return [timing for path in paths for timing in _read(Path(path))]


def machine_name(machine: dict[str, Any]) -> str:
    """Describe the machine of a provenance record in a few words, without its name."""
    return f"{machine['cpus']} CPUs" + (f", {machine['gpu']}" if machine["gpu"] else "")


def _best_is_at_edge(evaluation: Evaluation) -> bool:
    rows = evaluation.rows
    return len(rows) > 2 and evaluation.best["threshold"] in (rows[0]["threshold"], rows[-1]["threshold"])


def _table_metrics(evaluation: Evaluation) -> dict[str, Metric]:
    # the measured metrics: first those of regions, then those of skeletons, then edits
    rank = {"run_length": 1, "node_voi": 1, "synapse_voi": 1, "edits": 2}
    names = [name for name, metric in METRICS.items() if metric.heading and evaluation.best[name] is not None]
    return {name: METRICS[name] for name in sorted(names, key=lambda name: rank.get(METRICS[name].takes, 0))}


def _legend(evaluation: Evaluation) -> list[dict[str, Any]]:
    shares = voxel_error_shares(evaluation.table)
    return [
        {"name": name, "means": means, "share": shares[error], "color": "#{:02x}{:02x}{:02x}".format(*COLORS[error])}
        for error, (name, means) in _LEGEND.items()
    ]


def _printable(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value


def _embed(content: bytes | str) -> str:
    kind = "image/svg+xml" if isinstance(content, str) else "image/jpeg"
    data = content.encode() if isinstance(content, str) else content
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _memory(count: int) -> str:
    return "–" if not count else f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _file_name(words: str) -> str:
    return re.sub(r"[^\w.-]+", "_", words).strip("_")


def _read(path: Path) -> list[Timing]:
    if not path.is_file():
        raise BadInput(f"{path}: no such file; expected a manifest.json or a benchmark.tsv")
    try:
        return _read_benchmark(path) if path.suffix == ".tsv" else [_read_manifest(path)]
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError, csv.Error):
        raise BadInput(f"{path}: is neither a manifest of this suite nor a Snakemake benchmark table") from None


def _read_manifest(path: Path) -> Timing:
    manifest: dict[str, Any] = read_json(path)
    if "settings" in manifest and "seconds" not in manifest:  # of a checkpoint whose first manifest was lost
        return Timing(path.name.removesuffix(".manifest.json"), None, 0, "")
    memory = max(manifest["peak_memory"]["process"], manifest["peak_memory"]["largest_child"])
    stage = Path(manifest["command"][0]).stem
    return Timing(stage, _finite(manifest["seconds"]), int(memory), machine_name(manifest["machine"]))


def _read_benchmark(path: Path) -> list[Timing]:
    rows = csv.DictReader(read_text(path, "a benchmark table").splitlines(), delimiter="\t")
    return [Timing(path.stem, _finite(row["s"]), _megabytes(row["max_rss"]), "") for row in rows]


def _finite(value: Any) -> float:
    """Return a number of seconds; raise ValueError for NaN, infinity and negative numbers."""
    if not 0 <= float(value) < float("inf"):
        raise ValueError(value)
    return float(value)


def _megabytes(text: str) -> int:
    # Snakemake writes "NA" or "-" for a job that ended before its memory was measured
    return int(float(text) * 2**20) if text.replace(".", "", 1).isdigit() else 0
