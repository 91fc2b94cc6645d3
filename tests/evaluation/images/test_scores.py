"""Metrics of every image in every orientation, by hand and against a loop of image_scores."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import pearsonr

from emsuite.common.errors import BadInput
from emsuite.evaluation.image_metrics import IMAGE_METRICS, image_scores
from emsuite.evaluation.images.pairs import Pair
from emsuite.evaluation.images.scores import (
    ORIENTATIONS,
    ImageScore,
    check_names,
    grouped,
    means,
    score_volume,
    section_of,
    write_scores,
)
from emsuite.plates.statistics import Where

PLACE = Where("A/1/0", 0, 0)
ALL = tuple(IMAGE_METRICS)


def pair(mask: np.ndarray | None = None) -> Pair:
    rng = np.random.default_rng(0)
    target = rng.normal(size=(3, 14, 12))
    return Pair(target + 0.3 * rng.normal(size=target.shape), target, mask)


@pytest.mark.parametrize(("orientation", "count"), [("xy", 3), ("xz", 14), ("yz", 12), ("xyz", 1)])
def test_every_image_of_an_orientation(orientation: str, count: int) -> None:
    volumes = pair()
    scores = score_volume(volumes, PLACE, orientation, ("pearson", "mse"))
    assert len(scores) == count
    for number, score in enumerate(scores):
        axis = ORIENTATIONS[orientation]
        p, t = (part if axis is None else np.take(part, number, axis) for part in volumes[:2])
        assert score.index == (None if axis is None else number)
        assert score.values["mse"] == pytest.approx(np.square(p - t).mean())
        assert score.values["pearson"] == pytest.approx(pearsonr(p.ravel(), t.ravel()).statistic)


def test_masked_columns_are_those_of_the_voxels_inside() -> None:
    mask = np.zeros((3, 14, 12), bool)
    mask[0, :7], mask[1] = True, True
    scores = score_volume(pair(mask), PLACE, "xy", ALL)
    assert [score.values["vol_frac"] for score in scores] == [0.5, 1, 0]
    for number, score in enumerate(scores):
        section = section_of(pair(mask), "xy", number)
        inside = image_scores(*section[:2], section.mask) if number < 2 else dict.fromkeys(ALL, math.nan)
        assert {name: score.values[f"{name}_masked"] for name in ALL} == pytest.approx(inside, nan_ok=True)
        assert {name: score.values[name] for name in ALL} == pytest.approx(image_scores(*section[:2]))


def test_constant_images_are_known_and_left_out_of_means() -> None:
    volumes = pair()
    volumes.target[0], volumes.prediction[1] = 5, 7
    scores = score_volume(volumes, PLACE, "xy", ("pearson", "r2", "mae"))
    assert [(score.constant_target, score.constant_prediction) for score in scores] == [
        (True, False),
        (False, True),
        (False, False),
    ]
    mean = means(scores)
    assert mean["images"] == 2
    assert mean["pearson"] == scores[2].values["pearson"], "that of the second image is not defined"
    assert mean["mae"] == pytest.approx((scores[1].values["mae"] + scores[2].values["mae"]) / 2)
    assert means(scores[:1]) == {"images": 0}
    assert means(scores[1:2])["pearson"] is None
    assert grouped(scores, lambda score: score.index or 0)[1]["images"] == 1


def test_the_table(tmp_path: Path) -> None:
    scores = [
        ImageScore(Where("A/1/0", 0, 1), 4, {"r2": 0.5, "vol_frac": 0, "r2_masked": math.nan}, False, False),
        ImageScore(Where("A/1/2", 1, 0), 0, {"r2": 1 / 3, "vol_frac": 1, "r2_masked": -2}, False, False),
    ]
    write_scores(tmp_path / "t.csv", "xz", scores, ("nuclei", "membranes"), ("r2",))
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["position", "time", "channel", "y", "r2", "vol_frac", "r2_masked"],
        ["A/1/0", "0", "membranes", "4", "0.5", "0", ""],
        ["A/1/2", "1", "nuclei", "0", "0.33333333", "1", "-2"],
    ]
    write_scores(tmp_path / "t.csv", "xyz", [ImageScore(PLACE, None, {"r2": 1.0}, False, False)], ("nuclei",), ("r2",))
    assert (tmp_path / "t.csv").read_text() == "position,time,channel,r2\nA/1/0,0,nuclei,1\n"


@pytest.mark.parametrize(
    ("names", "orientations", "line"),
    [
        (("r3",), ("xy",), "no metric 'r3'; there are r2, pearson"),
        ((), ("xy",), "no metric ''"),
        (("r2", "r2"), ("xy",), "a metric is named twice in r2,r2"),
        (("r2",), ("zx",), "no orientation 'zx'; there are xy, xz, yz, xyz"),
        (("r2",), ("xy", "xyz"), "orientation xyz: each position has one slice, expected xy alone"),
    ],
)
def test_names_that_are_refused(names: tuple[str, ...], orientations: tuple[str, ...], line: str) -> None:
    with pytest.raises(BadInput, match=line):
        check_names(names, orientations, [1, 1])
