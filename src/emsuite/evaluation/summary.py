"""What a finished run found, in a few lines: scores, where report and segmentation lie, how to look at them."""

import json
import os
import shlex
from pathlib import Path

from emsuite.common.errors import BadInput


def summary(results: Path) -> str:
    """Text on every scored volume below `results`; raises BadInput if there is none."""
    found = sorted(results.rglob("scores.json"))
    if not found:
        raise BadInput(f"{results}: no scores.json below it; expected a folder that the workflow has written")
    return "\n\n".join(_one(path.parent, json.loads(path.read_text())) for path in found)


def _one(folder: Path, scores: dict) -> str:
    best = scores["best"]
    place = os.path.relpath(folder)
    return "\n".join(
        [
            f"{folder.name}, held out: VOI split {best['voi_split']:.3f}, merge {best['voi_merge']:.3f}, "
            f"sum {best['voi_sum']:.3f} bits (best at threshold {best['threshold']})",
            f"  report        {place}/report.html",
            f"  worst errors  {place}/errors.csv",
            f"  segmentation  {place}/segmentation.zarr/segmentation",
            f"  look at it    .venv/bin/python 04_segment/view.py {shlex.quote(place)}",
        ]
    )
