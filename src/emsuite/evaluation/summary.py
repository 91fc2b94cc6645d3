"""Summarize a finished run in a few lines: its scores, the paths of its results, and the command that shows them."""

import os
import shlex
from pathlib import Path

from emsuite.common.documents import read_json
from emsuite.common.errors import BadInput

_SHOWN = ("voi_split", "voi_merge", "voi_sum")


def summary(results: Path, viewer: str) -> str:
    """Return a text about every scored volume below `results`.

    Args:
        results: A folder that the workflow wrote.
        viewer: The command that shows a volume; the volume's folder is appended.

    Raises:
        BadInput: No volume below `results` was scored.
    """
    paths = sorted(results.rglob("scores.json"))
    if not paths:
        raise BadInput(f"{results}: no scores.json below it; expected a folder that the workflow has written")
    return "\n\n".join(_summarize(path, viewer) for path in paths)


def _summarize(path: Path, viewer: str) -> str:
    volume, scores = path.parent, read_json(path)
    best = scores.get("best") if isinstance(scores, dict) else None
    if not isinstance(best, dict) or not all(isinstance(best.get(key), float | int) for key in _SHOWN):
        raise BadInput(f"{path}: holds no {', '.join(_SHOWN)} under 'best', expected the scores of an evaluation")
    folder = os.path.relpath(volume)
    over = f" over {scores['scored']}" if scores.get("scored") == "skeleton nodes" else ""
    warning = [f"  warning       {scores['warning']}"] if scores.get("warning") else []
    return "\n".join(
        [
            f"{volume.name}, held out: VOI split {best['voi_split']:.3f}, merge {best['voi_merge']:.3f}, "
            f"sum {best['voi_sum']:.3f} bits{over} (best at threshold {best.get('threshold')})",
            *warning,
            f"  report        {folder}/report.html",
            f"  worst errors  {folder}/errors.csv",
            f"  segmentation  {folder}/segmentation.zarr/segmentation",
            f"  look at it    {viewer} {shlex.quote(folder)}",
        ]
    )
