"""What a finished run found, in a few lines: scores, where report and segmentation lie, how to look at them."""

import json
import os
import shlex
from pathlib import Path

from emsuite.common.errors import BadInput


def summary(results: Path, viewer: str) -> str:
    """Return a text on every scored volume below `results`; raise BadInput if there is none.

    `viewer` is the command that shows a folder of results.
    """
    found = sorted(results.rglob("scores.json"))
    if not found:
        raise BadInput(f"{results}: no scores.json below it; expected a folder that the workflow has written")
    return "\n\n".join(_one(path.parent, viewer, json.loads(path.read_text())) for path in found)


def _one(folder: Path, viewer: str, scores: dict) -> str:
    best = scores["best"]
    place = os.path.relpath(folder)
    return "\n".join(
        [
            f"{folder.name}, held out: VOI split {best['voi_split']:.3f}, merge {best['voi_merge']:.3f}, "
            f"sum {best['voi_sum']:.3f} bits (best at threshold {best['threshold']})",
            f"  report        {place}/report.html",
            f"  worst errors  {place}/errors.csv",
            f"  segmentation  {place}/segmentation.zarr/segmentation",
            f"  look at it    {viewer} {shlex.quote(place)}",
        ]
    )
