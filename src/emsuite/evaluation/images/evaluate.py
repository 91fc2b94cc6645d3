"""Evaluate predicted images: from two plates to tables of metrics, a summary, and a report.

out/metrics_xy.csv, ...    a row for each image, for each orientation that is asked for
out/scores.json            the means, by orientation and channel; the baselines; the provenance
out/report.html
out.manifest.json
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from emsuite.common.device import one_core
from emsuite.common.documents import read_json
from emsuite.common.errors import BadInput
from emsuite.common.files import write_json
from emsuite.common.outputs import is_finished, output
from emsuite.common.provenance import provenance
from emsuite.evaluation.image_metrics import IMAGE_METRICS
from emsuite.evaluation.images.baselines import fit_lines, score_baselines
from emsuite.evaluation.images.pairs import Chosen, Pairs
from emsuite.evaluation.images.pictures import some_values
from emsuite.evaluation.images.report import Scored, constant_images, write_image_report
from emsuite.evaluation.images.scores import ImageScore, check_names, means, score_volume, write_scores
from emsuite.io.fingerprint import origin_of
from emsuite.io.volume import fingerprint
from emsuite.plates.plate import check_outside, in_threads
from emsuite.plates.split import PARTS, read_split
from emsuite.plates.statistics import Where

_DRAWN = 200_000
"""Voxels of a channel in the plot of target against prediction."""
_KEYS = {"images", "baselines", "provenance"}
"""What scores.json holds among others, unless it is damaged."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """What is measured."""

    metrics: tuple[str, ...] = tuple(IMAGE_METRICS)
    orientations: tuple[str, ...] = ("xy",)
    baselines: bool = False
    split: Path | None = None
    """The positions that are scored are the `part` of this split.json; baselines are fitted to `train`."""
    part: str = "test"


class _Volume(NamedTuple):
    scores: dict[str, list[ImageScore]]
    values: np.ndarray


def evaluate_images(
    prediction: Path,
    target: Path,
    out: Path,
    chosen: Chosen | None = None,
    asked: Asked | None = None,
    workers: int = 1,
) -> dict[str, Any]:
    """Write tables, summary and report into a folder; a finished one with the same settings and inputs is left alone.

    Args:
        prediction: a plate of OME-NGFF, or a folder of frames.
        target: the same, with the same positions and sizes.
        out: the folder to write.
        chosen: channels, positions and masks.
        asked: metrics, orientations and baselines.
        workers: threads; the result does not depend on them.

    Returns:
        the content of scores.json.

    Raises:
        BadInput: plates do not fit each other, hold NaN, a channel of the target is constant throughout, all masks are
            empty, or a name is unknown.
    """
    asked, chosen = asked or Asked(), chosen or Chosen()
    chosen, train = _positions(asked, chosen)
    pairs = Pairs.of(prediction, target, chosen)
    check_names(asked.metrics, asked.orientations, [pairs.target.shape(name)[2] for name in pairs.target.positions])
    if asked.baselines and pairs.inputs is None:
        raise BadInput(f"{target}: all channels are targets, expected one as the input of baselines")
    inputs = {"prediction": prediction, "target": target}
    inputs |= {"masks": chosen.masks} if chosen.masks and chosen.masks != target else {}
    for path in inputs.values():
        check_outside(out, path)
    record = _record(asked, chosen, inputs)
    if asked.baselines and train:
        record["baselines_fitted_to"] = train
    earlier = read_json(out / "scores.json")
    if is_finished(out, record) and isinstance(earlier, dict) and earlier.keys() >= _KEYS:
        return earlier
    with output(out, record, inputs=inputs, fingerprint=fingerprint) as made:
        made.clear()
        with one_core():  # of each thread
            scored = _scored(pairs, asked, train, workers)
        for orientation, scores in scored.scores.items():
            path = out / f"metrics_{orientation}.csv"
            write_scores(path, orientation, scores, pairs.target.channels, asked.metrics)
        about = provenance(record, inputs, fingerprint=fingerprint)
        write_image_report(out / "report.html", pairs, scored, about, f"Images of {prediction.stem}")
        summary = _summary(pairs, scored) | {"provenance": about}
        write_json(out / "scores.json", summary)
    return summary


def _positions(asked: Asked, chosen: Chosen) -> tuple[Chosen, Sequence[str] | None]:
    """Return the choice with the positions of the split's part, and the positions to fit baselines to."""
    if asked.split is None:
        return chosen, None
    if asked.part not in PARTS:
        raise BadInput(f"no part '{asked.part}' of a split; there are {', '.join(PARTS)}")
    dealt = read_split(asked.split, by="position")
    if not dealt[asked.part]:
        raise BadInput(f"{asked.split}: no positions in '{asked.part}', expected some")
    one = Chosen(chosen.target_channels, chosen.input_channels, tuple(dealt[asked.part]), chosen.masks)
    return one, [str(name) for name in dealt["train"]] or None


def _record(asked: Asked, chosen: Chosen, inputs: dict[str, Path]) -> dict[str, Any]:
    record = asdict(asked) | asdict(chosen)
    return record | {"origins": {name: origin_of(path) for name, path in inputs.items()}}


def _scored(pairs: Pairs, asked: Asked, train: Sequence[str] | None, workers: int) -> Scored:
    volumes, channels = pairs.volumes(), range(len(pairs.target.channels))
    most = max(64, _DRAWN * len(channels) // len(volumes))

    def of_volume(where: Where) -> _Volume:
        pair = pairs.read(where)
        scores = {name: score_volume(pair, where, name, asked.metrics) for name in asked.orientations}
        return _Volume(scores, some_values(pair, most))

    def mapped(function: Callable[[Where], list[ImageScore]], places: Sequence[Where]) -> list[list[ImageScore]]:
        return in_threads(function, places, workers, "baselines", "volume")

    measured = in_threads(of_volume, volumes, workers, "evaluate", "volume")
    scores = {name: [one for volume in measured for one in volume.scores[name]] for name in asked.orientations}
    drawn = [(where.channel, volume.values) for where, volume in zip(volumes, measured, strict=True)]
    values = {channel: np.concatenate([part for c, part in drawn if c == channel], axis=1) for channel in channels}
    scored = Scored(asked.metrics, scores, values)
    _check(pairs, scored)
    if asked.baselines:
        lines = fit_lines(pairs, train or pairs.target.positions)
        baselines = score_baselines(pairs, lines, scored.orientation, asked.metrics, mapped)
        scored = Scored(asked.metrics, scores, values, baselines)
    return scored


def _check(pairs: Pairs, scored: Scored) -> None:
    """Raise BadInput for channels and masks that nothing can be measured on; tell of constant images."""
    first = scored.scores[scored.orientation]
    if pairs.masks and not any(score.values["vol_frac"] for score in first):
        raise BadInput(f"{pairs.masks.plate.path}: the masks are empty at all positions, expected voxels above 0")
    for number, channel in enumerate(pairs.target.channels):
        images, constant = len(scored.of_channel(number)), constant_images(scored, number)
        if constant["target"] == images:
            raise BadInput(f"{pairs.target.path}, channel {channel}: all images are constant, expected some with light")
        if constant["target"]:
            _log.warning("%s, channel %s: %d of %d images are constant; their metrics do not count in means",
                         pairs.target.path, channel, constant["target"], images)  # fmt: skip
        if constant["prediction"]:
            _log.warning("%s, channel %s: %d of %d predicted images are constant; they have no correlation",
                         pairs.prediction.path, channel, constant["prediction"], images)  # fmt: skip


def _summary(pairs: Pairs, scored: Scored) -> dict[str, Any]:
    channels = dict(enumerate(pairs.target.channels))
    shown = {number: scored.shown(number) for number in channels}
    return {
        "scored": "images",
        "positions": len(pairs.target.positions),
        "images": {
            orientation: {name: means(scored.of_channel(number, scores)) for number, name in channels.items()}
            for orientation, scores in scored.scores.items()
        },
        "baselines": {
            baseline: {name: means(scored.of_channel(number, scores)) for number, name in channels.items()}
            for baseline, scores in scored.baselines.items()
        },
        "ranked_by": scored.ranked_by,
        "worst": {name: shown[number][0] for number, name in channels.items()},
        "best": {name: shown[number][1] for number, name in channels.items()},
        "constant": {name: constant_images(scored, number) for number, name in channels.items()},
    }
