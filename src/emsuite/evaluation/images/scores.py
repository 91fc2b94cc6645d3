"""Metrics of every image of a plate, a table `metrics_xy.csv`, ... for each orientation.

xy     each slice            images (Y, X), one for each z
xz     each row y            images (Z, X)
yz     each column x         images (Z, Y)
xyz    the volume            (Z, Y, X)
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.files import write_table
from emsuite.evaluation.image_metrics import IMAGE_METRICS, image_scores, similarities
from emsuite.evaluation.images.pairs import Pair
from emsuite.plates.statistics import Where

ORIENTATIONS = {"xy": 0, "xz": 1, "yz": 2, "xyz": None}
"""The axis of (Z, Y, X) along which images are counted; None: the volume is one."""
LOWER_IS_BETTER = {"mse", "mae"}
MASKED = "_masked"
_SIMILAR = ("ssim", "ms_ssim")
_DIGITS = 8


@dataclass(frozen=True)
class ImageScore:
    """The metrics of one image, by name; NaN where a metric is not defined."""

    where: Where
    index: int | None
    """Its place along the axis of the orientation; None: the volume."""
    values: Mapping[str, float]
    """Those of all voxels; with masks, also `vol_frac` and those within the mask, as `r2_masked`."""
    constant_target: bool
    constant_prediction: bool


def score_volume(pair: Pair, where: Where, orientation: str, names: Sequence[str]) -> list[ImageScore]:
    """Return the scores of all images of a volume in an orientation.

    Args:
        pair: prediction, target and mask.
        where: the volume's place.
        orientation: of `ORIENTATIONS`.
        names: of `IMAGE_METRICS`.
    """
    images = list(_images(pair, orientation))
    similar, others = [name for name in names if name in _SIMILAR], [name for name in names if name not in _SIMILAR]
    kinds = (False,) if pair.mask is None else (False, True)
    measured = {(name, inside): _similarities(name, images, inside) for name in similar for inside in kinds}
    scores = []
    for number, (index, image) in enumerate(images):
        values = _values(image, None, others) | {name: measured[name, False][number] for name in similar}
        values = {name: values[name] for name in names}
        if image.mask is not None:
            inside = _values(image, image.mask, others) | {name: measured[name, True][number] for name in similar}
            values |= {"vol_frac": float(image.mask.mean())} | {name + MASKED: inside[name] for name in names}
        scores.append(ImageScore(where, index, values, not np.ptp(image.target), not np.ptp(image.prediction)))
    return scores


def _values(image: Pair, mask: np.ndarray | None, names: Sequence[str]) -> dict[str, float]:
    if mask is not None and not mask.any():
        return dict.fromkeys(names, math.nan)
    return image_scores(image.prediction, image.target, mask, names)


def _similarities(name: str, images: Sequence[tuple[int | None, Pair]], within_mask: bool) -> list[float]:
    """Return a similarity of each image, all together; NaN where its mask is empty."""
    predictions, targets = (np.stack([np.asarray(image[part]) for _, image in images]) for part in (0, 1))
    if not within_mask:
        return list(map(float, similarities(name, predictions, targets, None)))
    masks = np.stack([np.asarray(image.mask) for _, image in images])
    values = similarities(name, predictions, targets, masks)
    return [float(v) if mask.any() else math.nan for v, mask in zip(values, masks, strict=True)]


def _images(pair: Pair, orientation: str) -> Iterator[tuple[int | None, Pair]]:
    axis = ORIENTATIONS[orientation]
    if axis is None:
        yield None, pair
        return
    for index in range(pair.target.shape[axis]):
        yield index, section_of(pair, orientation, index)


def section_of(pair: Pair, orientation: str, index: int | None) -> Pair:
    """Return one image of a volume; of the volume itself, the slice in the middle."""
    axis = ORIENTATIONS[orientation] or 0
    place = pair.target.shape[axis] // 2 if index is None else index
    prediction, target, mask = (None if part is None else part.take(place, axis) for part in pair)
    assert prediction is not None
    assert target is not None
    return Pair(prediction, target, mask)


def check_names(names: Sequence[str], orientations: Sequence[str], sections: Iterable[int]) -> None:
    """Raise BadInput for unknown metrics or orientations, and for xz, yz and xyz of plates with one slice each.

    Args:
        names: of metrics.
        orientations: their names.
        sections: the slices of each position.
    """
    for what, given, known in (("metric", names, IMAGE_METRICS), ("orientation", orientations, ORIENTATIONS)):
        if not given or (odd := [name for name in given if name not in known]):
            raise BadInput(f"no {what} '{odd[0] if given else ''}'; there are {', '.join(known)}")
        if len(set(given)) < len(given):
            raise BadInput(f"a {what} is named twice in {','.join(given)}, expected each once")
    deep = [orientation for orientation in orientations if orientation != "xy"]
    if deep and max(sections) == 1:
        raise BadInput(f"orientation {deep[0]}: each position has one slice, expected xy alone")


def columns(names: Sequence[str], orientation: str, masked: bool) -> list[str]:
    """Return the columns of a table of metrics."""
    axis = ORIENTATIONS[orientation]
    place = [] if axis is None else ["zyx"[axis]]
    return [
        "position",
        "time",
        "channel",
        *place,
        *names,
        *(["vol_frac", *(n + MASKED for n in names)] if masked else ()),
    ]


def write_scores(
    path: Path, orientation: str, scores: Sequence[ImageScore], channels: Sequence[str], names: Sequence[str]
) -> None:
    """Write a table of metrics, a row for each image; cells of metrics that are not defined are empty.

    Args:
        path: the file.
        orientation: of the images.
        scores: of all images, in any order of volumes.
        channels: the names of the target's channels.
        names: of the metrics.
    """
    axis = ORIENTATIONS[orientation]
    rows = []
    for score in scores:
        row = {"position": score.where.position, "time": score.where.time, "channel": channels[score.where.channel]}
        row |= {} if axis is None else {"zyx"[axis]: score.index}
        cells = {key: "" if math.isnan(value) else f"{value:.{_DIGITS}g}" for key, value in score.values.items()}
        rows.append(row | cells)
    write_table(path, columns(names, orientation, any("vol_frac" in score.values for score in scores)), rows)


def means(scores: Iterable[ImageScore]) -> dict[str, float | int | None]:
    """Return the mean of each metric over images, and their number; None where it is defined for none.

    Images whose target is constant, as without light, do not count.
    """
    counted = [score for score in scores if not score.constant_target]
    result: dict[str, float | int | None] = {"images": len(counted)}
    for name in counted[0].values if counted else ():
        numbers = np.array([score.values[name] for score in counted])
        numbers = numbers[~np.isnan(numbers)]
        result[name] = float(numbers.mean()) if numbers.size else None
    return result


def grouped(
    scores: Iterable[ImageScore], key: Callable[[ImageScore], str | int]
) -> dict[str | int, dict[str, float | int | None]]:
    """Return the `means` of groups of images, by the key of a group, in the order in which keys first come."""
    groups: dict[str | int, list[ImageScore]] = {}
    for score in scores:
        groups.setdefault(key(score), []).append(score)
    return {name: means(group) for name, group in groups.items()}
