"""The report of predicted images: what `emsuite.evaluation.report` shows of a segmentation, for a plate.

For each target channel: the means of its metrics, beside those of baselines; target against prediction; the worst and
the best positions side by side.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.common.files import write_text
from emsuite.evaluation.images.pairs import Pairs
from emsuite.evaluation.images.pictures import Panel, draw_panel, ranking, scatter
from emsuite.evaluation.images.scores import LOWER_IS_BETTER, ORIENTATIONS, ImageScore, grouped, means, section_of
from emsuite.evaluation.report import render

Means = Mapping[str, float | int | None]
_SHOWN = 3
"""Positions among the worst, and among the best."""
_MEANINGS = {
    "r2": "coefficient of determination, 1 is perfect",
    "pearson": "correlation, 1 is perfect",
    "ssim": "structural similarity, 1 is perfect",
    "ms_ssim": "the same at several scales",
    "dice": "overlap above half of the maximum",
    "accuracy": "pixels on the right side of it",
    "mse": "mean squared error",
    "mae": "mean absolute error",
}


@dataclass(frozen=True)
class Scored:
    """All that was measured."""

    names: tuple[str, ...]
    """The metrics."""
    scores: Mapping[str, Sequence[ImageScore]]
    """Of all images, by orientation."""
    values: Mapping[int, np.ndarray]
    """Some voxels of each target channel, (2, n): target and prediction."""
    baselines: Mapping[str, Sequence[ImageScore]] = field(default_factory=dict)
    """Of images in the first orientation, by the name of the baseline."""

    @property
    def orientation(self) -> str:
        """The first one: baselines, ranks and pictures are of its images."""
        return next(iter(self.scores))

    @property
    def ranked_by(self) -> str:
        """The metric by which positions are the worst and the best."""
        return "pearson" if "pearson" in self.names else self.names[0]

    def of_channel(self, channel: int, scores: Iterable[ImageScore] | None = None) -> list[ImageScore]:
        """Return the scores of a target channel: of the first orientation, or those among `scores`."""
        return [s for s in scores or self.scores[self.orientation] if s.where.channel == channel]

    def ranked(self, channel: int) -> list[tuple[str, float]]:
        """Return positions with the mean of their metric, the worst first; those without light are left out."""
        mean = grouped(self.of_channel(channel), lambda score: score.where.position)
        known = [
            (str(name), number) for name, group in mean.items() if (number := group.get(self.ranked_by)) is not None
        ]
        return sorted(known, key=lambda pair: self._goodness(pair[1]))

    def shown(self, channel: int) -> tuple[list[str], list[str]]:
        """Return the worst positions and the best, the most extreme ones first; none is both."""
        names = [name for name, _ in self.ranked(channel)]
        count = min(_SHOWN, max(1, len(names) // 2))
        return names[:count], names[count:][::-1][:count]

    def extreme_image(self, channel: int, position: str, worst: bool) -> ImageScore:
        """Return the score of the worst or the best image of a position."""
        known = [
            score
            for score in self.of_channel(channel)
            if score.where.position == position
            and not score.constant_target
            and not np.isnan(score.values[self.ranked_by])
        ]
        return sorted(known, key=lambda score: self._goodness(score.values[self.ranked_by]))[0 if worst else -1]

    def _goodness(self, number: float) -> float:
        return -number if self.ranked_by in LOWER_IS_BETTER else number


def write_image_report(path: Path, pairs: Pairs, scored: Scored, provenance: dict[str, Any], title: str) -> None:
    """Write the report, an HTML file that works without a network and without scripts.

    Args:
        path: the file.
        pairs: what was compared; the pictures are read from it.
        scored: what was measured.
        provenance: the provenance record of the evaluation.
        title: the heading.
    """
    positions = len(pairs.target.positions)
    images = len(scored.scores[scored.orientation])
    text = render(
        "report_of_images.html",
        provenance,
        title=title,
        lead=f"{images:,} images ({scored.orientation}); positions: {positions}"
        f"{'; within masks as well' if pairs.masks else ''}.",
        orientation=scored.orientation,
        metrics=scored.names,
        channels=[_channel(pairs, scored, number) for number in range(len(pairs.target.channels))],
        tables=list(_tables(pairs, scored)),
    )
    write_text(path, text)


def constant_images(scored: Scored, channel: int) -> dict[str, int]:
    """Return how many images of a target channel have one value throughout: of the target, and of the prediction."""
    scores = scored.of_channel(channel)
    return {
        "target": sum(score.constant_target for score in scores),
        "prediction": sum(score.constant_prediction and not score.constant_target for score in scores),
    }


def _channel(pairs: Pairs, scored: Scored, number: int) -> dict[str, Any]:
    mean = means(scored.of_channel(number))
    rows = [{"name": "this prediction", "cells": _cells(mean, scored.names)}] if scored.baselines else []
    for name, scores in scored.baselines.items():
        rows.append({"name": name, "cells": _cells(means(scored.of_channel(number, scores)), scored.names)})
    worst, best = scored.shown(number)
    return {
        "name": pairs.target.channels[number],
        "scores": [_tile(name, mean) for name in scored.names],
        "note": _note(constant_images(scored, number)),
        "baselines": rows,
        "plots": _plots(scored, number),
        "panels": {
            "Worst positions": [_panel(pairs, scored, number, name, True) for name in worst],
            "Best positions": [_panel(pairs, scored, number, name, False) for name in best],
        },
    }


def _plots(scored: Scored, channel: int) -> dict[str, str]:
    values, plots = scored.values[channel], dict[str, str]()
    if values.size:  # masks may lie in images without light alone
        plots["Target against prediction, density of pixels"] = scatter(values)
    if len(ranked := scored.ranked(channel)) > 1:
        plots[f"Mean {scored.ranked_by} of each position"] = ranking([mean for _, mean in ranked], scored.ranked_by)
    return plots


def _tile(name: str, mean: Means) -> dict[str, str]:
    inside = mean.get(name + "_masked")
    note = _MEANINGS[name] if inside is None else f"{_number(name, inside)} within the mask"
    return {"name": name, "value": _number(name, mean.get(name)), "note": note}


def _note(constant: Mapping[str, int]) -> str:
    told = []
    if constant["target"]:
        told.append(f"Targets of one value throughout, not counted in means: {constant['target']}.")
    if constant["prediction"]:
        told.append(f"Predictions of one value throughout: {constant['prediction']}; they have no correlation.")
    return " ".join(told)


def _cells(mean: Means, names: Sequence[str]) -> list[str]:
    return [_number(name, mean.get(name)) for name in names]


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    if name.removesuffix("_masked") not in LOWER_IS_BETTER:
        return f"{value:.3f}"
    return f"{value:,.0f}" if 1000 <= value < 1e9 else f"{value:.4g}"


def _panel(pairs: Pairs, scored: Scored, channel: int, position: str, worst: bool) -> Panel:
    score, orientation = scored.extreme_image(channel, position, worst), scored.orientation
    pair = pairs.read(score.where)
    inputs = {}
    for number, name in enumerate(pairs.inputs.channels if pairs.inputs else ()):
        volume = pair._replace(target=pairs.inputs.read(position, score.where.time, number)) if pairs.inputs else pair
        inputs[f"input, {name}"] = section_of(volume, orientation, score.index).target
    axis = ORIENTATIONS[orientation]
    place = "" if score.index is None else f", {'zyx'[axis or 0]} {score.index}"
    told = ", ".join(f"{name} {_number(name, score.values[name])}" for name in scored.names)
    caption = f"{position}, time {score.where.time}{place}: {told}"
    kept = [number for number in range(3) if number != (axis or 0)]
    size = pairs.target.voxel_size_nm or (1.0, 1.0, 1.0)
    return draw_panel(caption, section_of(pair, orientation, score.index), inputs, [size[number] for number in kept])


def _tables(pairs: Pairs, scored: Scored) -> Iterable[dict[str, Any]]:
    """Yield a table of the means of channels by orientation, and one of the positions for each channel."""
    channels = pairs.target.channels
    wanted = list(scored.scores[scored.orientation][0].values)
    rows = []
    for orientation, scores in scored.scores.items():
        for number, channel in enumerate(channels):
            mean = means(scored.of_channel(number, scores))
            rows.append([orientation, channel, f"{mean['images']:,}", *_cells(mean, wanted)])
    yield {"caption": "By orientation", "header": ["", "channel", "images", *wanted], "rows": rows, "texts": 2}
    for number, channel in enumerate(channels):
        groups = grouped(scored.of_channel(number), lambda score: score.where.position)
        rows = [[str(name), str(mean["images"]), *_cells(mean, wanted)] for name, mean in groups.items()]
        caption = f"{channel}, by position, {scored.orientation}"
        yield {"caption": caption, "header": ["position", "images", *wanted], "rows": rows, "texts": 1}
