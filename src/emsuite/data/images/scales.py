"""How the grey values of a plate are normalized, by the method and the scope that preprocessing has chosen.

    grey values  ->  unit range       1/3 and 2/3 at the two percentiles of the channel: what augmentations change
    unit range   ->  normalized       by the statistics of the data set, a position, a volume, or the sample itself
    prediction   ->  grey values      by the statistics of the data set, which the checkpoint records

A prediction takes nothing from its target: in a new plate there is none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emsuite.common.documents import read_json
from emsuite.common.errors import BadInput
from emsuite.plates.plate import Plate
from emsuite.plates.statistics import GreyScale, Moments, Row, exact_percentiles, grey_scale, read_statistics

Key = tuple[str, str, int | str, int]
"""Scope, position, time and channel of a line of statistics."""
_LEAST = 1e-12


@dataclass(frozen=True)
class ImageScales:
    """The normalization of a plate."""

    method: str
    scope: str
    percentiles: tuple[float, float]
    rows: Mapping[Key, Row]
    """The lines of statistics.csv."""

    @classmethod
    def of_folder(cls, folder: Path) -> "ImageScales":
        """Read the statistics in a folder of preprocessing; raise BadInput if a file is missing or odd."""
        step = step_of(folder, "normalize")
        try:
            low, high = step["percentiles"]
            method, scope, percentiles = str(step["method"]), str(step["scope"]), (float(low), float(high))
        except (KeyError, TypeError, ValueError):
            raise BadInput(
                f"{folder}/preprocessing.json: names no normalization, expected a folder of a preprocessed plate"
            ) from None
        rows = read_statistics(folder / "statistics.csv")
        return cls(method, scope, percentiles, {(r.scope, r.position, r.time, r.channel): r for r in rows})

    def scale(self, position: str, time: int, channel: int) -> GreyScale | None:
        """Return how a volume is normalized; None if each sample measures itself."""
        if self.scope == "tile":
            return None
        key: Key = ("dataset", "", "", channel)
        if self.scope != "dataset":
            key = (self.scope, position, time if self.scope == "volume" else "", channel)
        return grey_scale(self.rows[key], self.method)

    def unit(self, channel: int) -> GreyScale:
        """Return the unit range of a channel: its percentiles lie at 1/3 and 2/3."""
        row = self.rows["dataset", "", "", channel]
        reach = max(row.high - row.low, _LEAST)
        return GreyScale(row.low - reach, 3 * reach)

    def record(self, plate: Plate) -> dict[str, Any]:
        """Return what a checkpoint records: method, scope, percentiles, and shift and scale of each channel."""
        channels = {}
        for number, name in enumerate(plate.channels):
            scale = grey_scale(self.rows["dataset", "", "", number], self.method)
            channels[name] = [float(scale.shift), float(scale.scale)]
        return {
            "method": self.method,
            "scope": self.scope,
            "percentiles": list(self.percentiles),
            "channels": channels,
        }


def step_of(folder: Path, name: str, part: str = "settings") -> dict[str, Any]:
    """Return the settings, or the `result`, of a step of preprocessing.json; none if it was not done.

    Raises:
        BadInput: there is no such file, or another one.
    """
    path = folder / "preprocessing.json"
    content = read_json(path) if path.is_file() else None
    steps = content.get("steps") if isinstance(content, dict) else None
    if not isinstance(steps, list):
        raise BadInput(f"{path}: no record of preprocessing; expected a folder of a preprocessed plate")
    done = [step for step in steps if isinstance(step, dict) and step.get("step") == name and step.get("done")]
    return dict(done[0].get(part) or {}) if done else {}


def measured(voxels: np.ndarray, method: str, percentiles: tuple[float, float]) -> GreyScale:
    """Return the scale that suits voxels (Z, Y, X); empty sections do not count."""
    near = exact_percentiles(voxels, percentiles) if method == "percentile" else (0.0, 0.0)
    moments = Moments.of(voxels)
    row = Row("tile", voxels=moments.count, mean=moments.mean, std=moments.deviation, low=near[0], high=near[1])
    return grey_scale(row, method)


def from_unit(unit: GreyScale, scale: GreyScale) -> tuple[float, float]:
    """Return gain and shift with normalized = unit range * gain + shift."""
    return unit.scale / scale.scale, (unit.shift - scale.shift) / scale.scale


def columns(numbers: Sequence[tuple[float, float]]) -> tuple[Tensor, Tensor]:
    """Return gains and shifts of channels as tensors (C, 1, 1, 1)."""
    gains, shifts = (
        torch.tensor(each, dtype=torch.float32)[:, None, None, None] for each in zip(*numbers, strict=True)
    )
    return gains, shifts
