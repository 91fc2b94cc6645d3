"""Metrics of images: by hand, against scikit-image and SciPy, and over masks."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import linregress, pearsonr
from skimage.metrics import mean_squared_error, structural_similarity

from emsuite.common.errors import BadInput
from emsuite.evaluation.image_metrics import IMAGE_METRICS, image_scores

SHAPES = [(48, 41), (14, 30, 26)]


def images(shape: tuple[int, ...], kind: type = np.float64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A smooth target, a noisy prediction of it with a wrong scale, and a mask."""
    rng = np.random.default_rng(0)
    target = gaussian_filter(rng.normal(size=shape), 2.0)
    target = (target - target.min()) / np.ptp(target) * 200
    prediction = np.clip(0.8 * target + 20 + rng.normal(size=shape) * 4, 0, 255)
    return prediction.astype(kind), target.astype(kind), (gaussian_filter(rng.normal(size=shape), 2.0) > 0)


def test_four_voxels_by_hand() -> None:
    prediction, target = np.array([[4.0, 1.0], [2.0, 5.0]]), np.array([[4.0, 0.0], [4.0, 0.0]])
    found = image_scores(prediction, target, names=["mse", "mae", "r2", "dice", "accuracy"])
    # above 2.5 lie two voxels of the prediction, above 2 two of the target, one voxel in both
    expected = {"mse": (0 + 1 + 4 + 25) / 4, "mae": 8 / 4, "r2": 1 - 30 / 16, "dice": 2 * 1 / 4, "accuracy": 2 / 4}
    assert found == pytest.approx(expected)
    mask = np.array([[1, 1], [1, 0]])
    found = image_scores(prediction, target, mask, ["mse", "mae", "r2", "dice", "accuracy"])
    expected = {"mse": 5 / 3, "mae": 1, "r2": 1 - 5 / (32 / 3), "dice": 2 * 1 / 3, "accuracy": 2 / 3}
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("kind", [np.float64, np.uint8])
@pytest.mark.parametrize("shape", SHAPES)
def test_references(shape: tuple[int, ...], kind: type) -> None:
    p, t, mask = images(shape, kind)
    a, b = p.astype(float), t.astype(float)
    reach = np.ptp(b)
    _, full = structural_similarity(a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                                    data_range=reach, full=True)  # fmt: skip
    whole = (slice(5, -5),) * len(shape)
    for inside, given in ((np.ones(shape, bool), None), (mask, mask.astype(np.uint8))):
        found = image_scores(p, t, given)
        x, y = a[inside], b[inside]
        assert found["mse"] == pytest.approx(mean_squared_error(x, y), rel=1e-9)
        assert found["mae"] == pytest.approx(np.abs(x - y).mean(), rel=1e-9)
        assert found["pearson"] == pytest.approx(pearsonr(x, y).statistic, rel=1e-9)
        assert found["ssim"] == pytest.approx(full[whole][inside[whole]].mean(), abs=1e-5)
        assert 0 < found["ms_ssim"] < 1
        line = linregress(x, y)  # of the best line, R2 is the square of the correlation
        best = image_scores(line.intercept + line.slope * a, b, given, ["r2"])["r2"]
        assert best == pytest.approx(found["pearson"] ** 2, rel=1e-9)
        assert found["r2"] < best


@pytest.mark.parametrize("shape", [*SHAPES, (1, 30, 30), (3, 4, 5)])
def test_an_image_equals_itself(shape: tuple[int, ...]) -> None:
    _, t, mask = images(shape)
    mask.flat[0] = mask.flat[-1] = True
    for given in (None, mask):
        found = image_scores(t, t, given)
        assert found == pytest.approx({name: 0 if name in ("mse", "mae") else 1 for name in IMAGE_METRICS})


def test_voxels_outside_the_mask_change_no_value() -> None:
    p, t, mask = images(SHAPES[0])
    other = np.where(mask, p, 0)
    values = ["mse", "mae", "r2", "pearson"]
    assert image_scores(p, t, mask, values) == image_scores(other, t, mask, values)
    assert image_scores(p, t, None, values) != image_scores(other, t, None, values)


def test_constant_images() -> None:
    flat, varied = np.ones((12, 12)), images((12, 12))[1]
    assert math.isnan(image_scores(varied, flat)["r2"])
    assert math.isnan(image_scores(flat, varied)["pearson"])
    assert image_scores(flat, varied)["r2"] < 0
    assert image_scores(np.zeros((12, 12)), np.zeros((12, 12)))["dice"] == 1


@pytest.mark.parametrize(("change", "message"), [
    ({"prediction": np.zeros((5, 4))}, r"prediction: shape \(5, 4\), expected that of the target, \(4, 4\)"),
    ({"mask": np.zeros((4, 4))}, "mask: is 0 everywhere"), ({"mask": np.ones((4, 5))}, "mask: shape"),
    ({"prediction": np.full((4, 4), np.nan)}, "prediction: holds NaN"), ({"names": ["psnr"]}, "no metric 'psnr'"),
    ({"target": np.zeros(4)}, "target: an array of shape"),
])  # fmt: skip
def test_what_cannot_be_compared_is_refused(change: dict, message: str) -> None:
    given = {"prediction": np.zeros((4, 4)), "target": np.eye(4)} | change
    with pytest.raises(BadInput, match=message):
        image_scores(**given)
