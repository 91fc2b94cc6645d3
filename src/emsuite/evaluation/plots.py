"""Plot the scores over the thresholds of a sweep, as SVG."""

import io
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emsuite.evaluation.threshold_sweep import Evaluation

_SPLIT, _MERGE, _SUM = "#e07b00", "#c2185b", "#1f2933"
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text, in the font of the reader's browser
    "svg.hashsalt": "emsuite",  # the same numbers give the same bytes
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa5b1",
    "axes.labelcolor": "#3e4c59",
    "xtick.color": "#616e7c",
    "ytick.color": "#616e7c",
    "axes.grid": True,
    "grid.color": "#e4e7eb",
    "legend.frameon": False,
}


def curves(evaluation: Evaluation) -> dict[str, str]:
    """Return the SVG text of each curve by its caption; no curves if there is one threshold only."""
    if len(evaluation.rows) < 2:
        return {}
    plots = {
        "Variation of information over the threshold": _svg(_voi_over_threshold, evaluation),
        "Split against merge, along the thresholds": _svg(_split_against_merge, evaluation),
    }
    if evaluation.best["erl"] is not None:
        plots["Expected run length over the threshold"] = _svg(_erl_over_threshold, evaluation)
    if all(row["splits_needed"] is not None for row in evaluation.rows):
        plots["Edits needed over the threshold (min-cut metric)"] = _svg(_edits_over_threshold, evaluation)
    return plots


def _svg(draw: Callable[[Axes, Evaluation], None], evaluation: Evaluation) -> str:
    return plot(lambda axes: draw(axes, evaluation))


def plot(draw: Callable[[Axes], None], size: tuple[float, float] = (4.6, 3.1)) -> str:
    """Return the SVG text of what a function draws, `size` inches; the same numbers give the same text."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()


def _column(evaluation: Evaluation, name: str) -> np.ndarray:
    return np.array([row[name] for row in evaluation.rows], np.float64)


def _voi_over_threshold(axes: Axes, evaluation: Evaluation) -> None:
    thresholds = _column(evaluation, "threshold")
    for name, color, width in (("sum", _SUM, 2.0), ("split", _SPLIT, 1.5), ("merge", _MERGE, 1.5)):
        axes.plot(thresholds, _column(evaluation, f"voi_{name}"), color=color, linewidth=width, label=name)
    axes.plot([evaluation.best["threshold"] or 0], [evaluation.best["voi_sum"]], "o", color=_SUM)
    axes.set(xlabel="threshold", ylabel="bits", ylim=(0, None))
    axes.legend()


def _split_against_merge(axes: Axes, evaluation: Evaluation) -> None:
    best = evaluation.best
    axes.plot(_column(evaluation, "voi_merge"), _column(evaluation, "voi_split"), ".-", color="#7b8794", linewidth=1)
    axes.plot([best["voi_merge"]], [best["voi_split"]], "o", color=_SUM)
    axes.annotate(
        f"{best['threshold']:g}", (best["voi_merge"], best["voi_split"]), (7, 4), textcoords="offset points", color=_SUM
    )
    axes.set(xlabel="VOI merge (bits)", ylabel="VOI split (bits)", xlim=(0, None), ylim=(0, None))


def _erl_over_threshold(axes: Axes, evaluation: Evaluation) -> None:
    axes.plot(_column(evaluation, "threshold"), _column(evaluation, "erl") / 1000, color="#0b7285", linewidth=2)
    axes.axvline(evaluation.best["threshold"] or 0, color="#9aa5b1", linestyle=":")
    axes.set(xlabel="threshold (dotted: best by VOI)", ylabel="µm", ylim=(0, None))


def _edits_over_threshold(axes: Axes, evaluation: Evaluation) -> None:
    thresholds, splits, merges = (_column(evaluation, n) for n in ("threshold", "splits_needed", "merges_needed"))
    axes.plot(thresholds, splits + merges, color=_SUM, linewidth=2, label="both")
    axes.plot(thresholds, splits, color=_SPLIT, linewidth=1.5, label="splits of merged segments")
    axes.plot(thresholds, merges, color=_MERGE, linewidth=1.5, label="merges of split ones")
    axes.axvline(evaluation.best["threshold"] or 0, color="#9aa5b1", linestyle=":")
    axes.set(xlabel="threshold (dotted: best by VOI)", ylabel="edits", ylim=(0, None))
    axes.legend()
