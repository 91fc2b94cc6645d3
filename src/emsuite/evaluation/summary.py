"""Summarize finished results in a few lines: their scores, their paths, and the command that shows them.

Results of one folder may be of several runs. What made them differs then, and is told.
"""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from emsuite.common.documents import read_json
from emsuite.common.errors import BadInput
from emsuite.common.outputs import read_manifest
from emsuite.common.provenance import recorded_settings
from emsuite.segmentation.instances.settings import Decoding
from emsuite.segmentation.settings import AgglomerationSettings, FragmentSettings

_SHOWN = ("voi_split", "voi_merge", "voi_sum")
_OF_ALL = ("network", "iteration", "weights", "tiles")  # others do not apply to each kind of segmentation
_DIGITS = 8  # of the digest of weights


def find_scored(results: Path) -> list[Path]:
    """Return the folders of all scored volumes in `results`, a folder that the workflow wrote; BadInput for none."""
    folders = sorted(path.parent for path in results.rglob("scores.json"))
    if not folders:
        raise BadInput(f"{results}: no scores.json below it; expected a folder that the workflow has written")
    return folders


def summary(folders: Sequence[Path], viewer: str, titles: Mapping[Path, str] | None = None) -> str:
    """Return a text about scored volumes; where different weights or settings made them, it says so.

    Args:
        folders: Each holds the results of a volume.
        viewer: The command that shows a volume; the volume's folder is appended.
        titles: What the folders are called, as `trvol-250-1, held out`; by default by their names, with as many of the
            folders above as tell them apart.

    Raises:
        BadInput: A folder holds no scores.
    """
    called = _names(folders) | dict(titles or {})
    known = [_made_with(folder) for folder in folders]
    keys = list(dict.fromkeys(key for made_with in known for key in made_with))
    differing = [key for key in keys if len({made_with.get(key) for made_with in known}) > 1]
    parts = ["These results were made with different weights or settings: compare them with care."] if differing else []
    for folder, made_with in zip(folders, known, strict=True):
        known_here = [key for key in differing if key in made_with or key in _OF_ALL]
        told = ", ".join(f"{key} {made_with.get(key, 'unknown')}" for key in known_here)
        parts.append(_summarize(folder, viewer, called[folder], told))
    return "\n\n".join(parts)


def _names(folders: Sequence[Path]) -> dict[Path, str]:
    """Return the shortest end of each path that no other one has."""
    names = dict[Path, str]()
    for folder in folders:
        parts, others = folder.parts, [other.parts for other in folders if other != folder]
        ends = range(1, len(parts) + 1)
        n = next((n for n in ends if all(other[-n:] != parts[-n:] for other in others)), len(parts))
        names[folder] = str(Path(*parts[-n:]))
    return names


def image_headlines(scores: Mapping[str, Any]) -> list[str]:
    """Return a line for each channel of predicted images: its means in the first orientation of a scores.json."""
    orientation, channels = next(iter(scores["images"].items()))
    lines = []
    for channel, mean in channels.items():
        known = {name: value for name, value in mean.items() if value is not None and not _is_of_masks(name)}
        told = ", ".join(f"{name} {value:.4g}" for name, value in known.items() if name != "images")
        lines.append(f"{channel}: {told} ({mean['images']} images, {orientation})")
    return lines


def _is_of_masks(name: str) -> bool:
    return name == "vol_frac" or name.endswith("_masked")


def _made_with(folder: Path) -> dict[str, str]:
    """Return the weights and settings that made the results in `folder`, as far as the manifests there tell."""
    return {key: str(value) for key, value in _settings(folder) if value is not None}


def _settings(folder: Path) -> Iterator[tuple[str, Any]]:
    prediction, fragments, edges, decoded = (
        _mapping(recorded_settings(read_manifest(folder / name)))
        for name in ("prediction.zarr", "fragments.zarr", "graph/edges", "segmentation.zarr")
    )
    yield "network", _mapping(prediction.get("network")).get("network")
    yield "iteration", prediction.get("iteration")
    yield "weights", str(prediction["weights"])[:_DIGITS] if "weights" in prediction else None
    yield "tiles", prediction.get("tiles")
    for key in (*FragmentSettings.model_fields, "block_size"):
        yield key, fragments.get(key)
    for key in AgglomerationSettings.model_fields:
        yield key, edges.get(key)
    for field in fields(Decoding):
        yield field.name, decoded.get(field.name)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _summarize(volume: Path, viewer: str, title: str, made_with: str) -> str:
    path, scores = volume / "scores.json", read_json(volume / "scores.json")
    if isinstance(scores, dict) and scores.get("scored") == "images":
        lines = [f"{title}: {line}" for line in image_headlines(scores)]
        return "\n".join([*lines, f"  report        {os.path.relpath(volume)}/report.html"])
    best = scores.get("best") if isinstance(scores, dict) else None
    if not isinstance(best, dict) or not all(isinstance(best.get(key), float | int) for key in _SHOWN):
        raise BadInput(f"{path}: holds no {', '.join(_SHOWN)} under 'best', expected the scores of an evaluation")
    folder = os.path.relpath(volume)
    over = f" over {scores['scored']}" if scores.get("scored") == "skeleton nodes" else ""
    threshold = "" if best.get("threshold") is None else f" (best at threshold {best['threshold']})"
    notes = {"warning": scores.get("warning"), "made with": made_with}
    return "\n".join(
        [
            f"{title}: VOI split {best['voi_split']:.3f}, "
            f"merge {best['voi_merge']:.3f}, sum {best['voi_sum']:.3f} bits{over}{threshold}",
            *(f"  {name:<13} {text}" for name, text in notes.items() if text),
            f"  report        {folder}/report.html",
            f"  worst errors  {folder}/errors.csv",
            f"  segmentation  {folder}/segmentation.zarr/segmentation",
            f"  look at it    {viewer} {shlex.quote(folder)}",
        ]
    )
