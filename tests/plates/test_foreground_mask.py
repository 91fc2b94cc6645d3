"""Masks and weights: cases by hand, thresholds and distances computed in another way."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import disk

from emsuite.plates.foreground_mask import (
    border_weights,
    foreground,
    foreground_of_channels,
    rosin_threshold,
    threshold_of,
)


def blobs(seed: int = 0, shape: tuple[int, ...] = (64, 80)) -> np.ndarray:
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 4)
    return np.asarray(100 + 50 * (smooth > smooth.std()) + np.random.default_rng(seed + 1).normal(0, 4, shape))


def rosin_by_hand(values: np.ndarray) -> float:
    """The perpendicular distance of every bin from the line, one by one."""
    counts, edges = np.histogram(values, bins=256, range=(values.min(), np.percentile(values, 99.5)))
    first = int(np.argmax(counts))
    last = max(n for n in range(256) if counts[n])
    begin, end = np.array([first, counts[first]], float), np.array([last, counts[last]], float)
    along = (end - begin) / np.linalg.norm(end - begin)
    best, farthest = first, -1.0
    for n in range(first, last + 1):
        away = np.array([n, counts[n]], float) - begin
        distance = np.linalg.norm(away - along * (away @ along))
        if distance > farthest + 1e-9:
            best, farthest = n, distance
    return float(edges[best : best + 2].mean())


@pytest.mark.parametrize("seed", range(5))
def test_rosins_threshold_by_perpendicular_distances(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(100, 5, 20_000), rng.gamma(2.0, 60.0, 3000) + 100])
    assert rosin_threshold(values) == pytest.approx(rosin_by_hand(values))


def test_rosins_threshold_of_a_corner() -> None:
    """A peak in bin 0 and a flat tail of one value a bin: the corner is where the tail begins."""
    values = np.concatenate([np.zeros(10_000), np.arange(1, 256)])
    threshold = rosin_threshold(values)
    assert 0 < threshold < 3


def test_otsu_is_scikit_images() -> None:
    image = blobs()
    assert threshold_of(image, "otsu") == threshold_otsu(image, nbins=512)
    mask = image > threshold_otsu(image, nbins=512)
    mask = ndimage.binary_fill_holes(ndimage.binary_opening(mask, disk(3)))
    assert np.array_equal(foreground(image, "otsu", 3), mask)


def test_unimodal_is_opened_and_eroded() -> None:
    image = blobs()
    mask = ndimage.binary_opening(image > rosin_by_hand(image), disk(2))
    assert np.array_equal(foreground(image, "unimodal", 2), ndimage.binary_erosion(mask, disk(2)))
    assert np.array_equal(foreground(image, "unimodal", 0), image > rosin_by_hand(image))


def test_a_square_with_a_hole() -> None:
    image = np.zeros((20, 20))
    image[4:16, 4:16] = 1
    square = image > 0
    image[9:11, 9:11] = 0
    image[0, 19] = 1
    assert np.array_equal(foreground(image, "otsu", 1), ndimage.binary_opening(square, disk(1)))


def test_channels_are_thresholded_alone_and_joined() -> None:
    one, two = np.stack([blobs(1)] * 2), np.stack([blobs(2), np.full((64, 80), 5.0)])
    mask = foreground_of_channels([one, two], "otsu", 2, whole=False)
    assert np.array_equal(mask[0], foreground(one[0], "otsu", 2) | foreground(two[0], "otsu", 2))
    assert np.array_equal(mask[1], foreground(one[1], "otsu", 2)), "a frame without light adds nothing"
    dark = np.zeros((2, 64, 80))
    assert not foreground_of_channels([dark], "otsu", 2, whole=True).any()


def test_a_whole_volume_has_one_threshold() -> None:
    volume = np.stack([blobs(1), blobs(2), blobs(3)])
    volume[1] += 30
    whole = foreground_of_channels([volume], "otsu", 0, whole=True)
    filled = ndimage.binary_fill_holes(volume > threshold_otsu(volume, nbins=512))
    assert np.array_equal(whole, filled)
    assert not np.array_equal(whole, foreground_of_channels([volume], "otsu", 0, whole=False))


def test_equal_values_have_no_threshold() -> None:
    for method in ("otsu", "unimodal"):
        with pytest.raises(ValueError, match="all values are equal"):
            threshold_of(np.ones((4, 4)), method)
        assert not foreground(np.ones((4, 4)), method, 1).any()


def weights_by_hand(mask: np.ndarray, w0: float, sigma: float) -> np.ndarray:
    """Distances of each pixel to every pixel of every component."""
    components, count = ndimage.label(mask)
    weights = np.zeros(mask.shape)
    sizes = {0: (mask == 0).sum(), 1: mask.sum()}
    top = max(1 / size for size in sizes.values())
    for at in np.ndindex(mask.shape):
        weights[at] = 1 / sizes[int(mask[at])] / top
        if not mask[at]:
            far = sorted(np.hypot(*(np.argwhere(components == n) - at).T).min() for n in range(1, count + 1))
            weights[at] += w0 * np.exp(-((far[0] + far[1]) ** 2) / (2 * sigma**2))
    return weights


def test_border_weights_by_all_distances() -> None:
    mask = np.zeros((30, 44), bool)
    mask[3:12, 4:14], mask[3:14, 17:24], mask[20:28, 6:30], mask[1:4, 40:43] = True, True, True, True
    for w0, sigma in ((10.0, 5.0), (3.0, 2.0)):
        assert np.allclose(border_weights(mask, w0, sigma), weights_by_hand(mask, w0, sigma), atol=1e-5)


def test_border_weights_of_labels_that_touch() -> None:
    labels = np.zeros((12, 12), int)
    labels[2:10, 2:6], labels[2:10, 6:10] = 7, 9
    weights = border_weights(labels, 10, 5)
    assert (weights[labels > 0] == 1).all(), "the rarer class"
    assert weights[1, 5] == pytest.approx(64 / 80 + 10 * np.exp(-((1 + np.sqrt(2)) ** 2) / 50))


def test_one_component_has_the_weights_of_its_class_alone() -> None:
    mask = np.zeros((10, 10), bool)
    mask[2:4, 2:4] = True
    assert np.allclose(border_weights(mask), np.where(mask, 1, 4 / 96))
    assert np.allclose(border_weights(np.zeros((5, 5), bool)), 1)
