"""The report of one evaluation: a single HTML file that needs nothing beside it, neither network nor scripts."""

import base64
import shlex
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from emsuite.curves import curves
from emsuite.evaluate import Evaluation
from emsuite.faults import Fault
from emsuite.files import write_text
from emsuite.mistakes import Mistake, mistake_shares
from emsuite.sections import COLORS, Section
from emsuite.timings import Timing, machine_name


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
    template = environment.from_string(files("emsuite").joinpath("report.html").read_text(encoding="utf-8"))
    text = template.render(
        title=title,
        evaluation=evaluation,
        best=evaluation.best,
        at_edge=_at_edge(evaluation),
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
    return len(rows) > 2 and evaluation.best.threshold in (rows[0].threshold, rows[-1].threshold)


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
