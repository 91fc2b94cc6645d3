"""Pictures of images: grey scales that agree, colours of errors, sizes, and plots."""

import io

import numpy as np
import pytest
from PIL import Image

from emsuite.evaluation.images.pairs import Pair
from emsuite.evaluation.images.pictures import draw_panel, ranking, scatter, some_values


def decoded(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)), int)


def test_a_panel_shares_its_grey_scale_and_colours_errors() -> None:
    target = np.tile(np.linspace(100, 200, 64), (64, 1))
    prediction = target.copy()
    prediction[:32] += 50  # half of the range: the full colour
    prediction[32:, 32:] -= 50
    pictures = draw_panel("one", Pair(prediction, target, None), {"input": np.zeros((64, 64))}).pictures
    assert list(pictures) == ["input", "target", "prediction", "error"]
    grey = {name: decoded(picture) for name, picture in pictures.items()}
    assert abs(grey["target"][48, 5] - grey["prediction"][48, 5]) < 4
    assert grey["prediction"][10, 20] - grey["target"][10, 20] == pytest.approx(127, abs=6)
    red, blue, white = grey["error"][10, 10], grey["error"][50, 50], grey["error"][50, 10]
    assert red[0] > red[2] + 60
    assert blue[2] > blue[0] + 60
    assert white.min() > 230
    assert np.ptp(grey["input"]) < 3, "a constant image has no limits of its own"


def test_large_images_are_averaged_and_voxels_keep_their_proportions() -> None:
    rng = np.random.default_rng(0)
    big = rng.normal(size=(700, 1100))
    panel = draw_panel("big", Pair(big, big, None), {})
    assert decoded(panel.pictures["target"]).shape == (234, 367)
    thin = draw_panel("thin", Pair(big[:4, :50], big[:4, :50], None), {}, (500, 100))
    assert decoded(thin.pictures["target"]).shape == (20, 50)


def test_some_values_are_those_that_count() -> None:
    target = np.arange(1000.0).reshape(10, 10, 10)
    values = some_values(Pair(target + 1, target, None), 100)
    assert values.shape == (2, 100)
    assert (values[1] - values[0] == 1).all()
    values = some_values(Pair(target + 1, target, target >= 990), 100)
    assert values[0].tolist() == list(range(990, 1000))
    target[1:] = 7  # without light
    assert some_values(Pair(target + 1, target, None), 1000)[0].tolist() == list(range(100))
    target[:] = 7
    assert some_values(Pair(target, target, None), 10).shape == (2, 0)


def test_plots_are_the_same_each_time() -> None:
    values = np.random.default_rng(0).normal(size=(2, 500)).astype(np.float32)
    assert scatter(values) == scatter(values.copy())
    assert scatter(values).startswith("<?xml")
    assert "pearson" in ranking([0.5, 0.25, 0.75], "pearson")
    assert scatter(np.zeros((2, 3), np.float32)), "of constant images"
