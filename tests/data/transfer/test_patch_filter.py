"""The filter of patches: closed forms of each rule."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import wasserstein_distance
from skimage.filters import threshold_otsu

from emsuite.data.transfer.patch_filter import (
    BINS,
    Likeness,
    PatchFilter,
    Target,
    cut,
    dense,
    earth_movers_distance,
    histograms,
    measure,
    nearest,
    otsu,
    resized,
)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def test_blocks_are_cut_from_the_corner_and_the_rest_is_dropped() -> None:
    slab = random(2, 10, 13)
    blocks = cut(slab, (3, 4))
    assert blocks.shape == (3, 3, 2, 3, 4)
    assert np.array_equal(blocks[2, 1], slab[:, 6:9, 4:8])


def test_the_published_density_rule() -> None:
    """A block is kept if its mean is at least its slice's, whose mean counts what the blocks leave out."""
    slab = random(1, 70, 90)
    slab[:, 64:] = 1  # not in any block
    numbers = measure(slab, (32, 32), 0.5, True)
    expected = [[slab[0, y : y + 32, x : x + 32].mean() >= slab.mean() for x in (0, 32)] for y in (0, 32)]
    assert dense(numbers, 1.0).tolist() == expected
    assert not any(map(any, expected))
    inner = measure(slab[:, :64], (32, 32), 0.5, True)
    assert 0 < dense(inner, 1.0).sum() < 4
    assert dense(numbers, None).all()
    assert dense(numbers, 0.5).all()


def test_blocks_of_a_flat_slice_are_all_kept() -> None:
    assert dense(measure(np.full((1, 64, 64), 0.1, np.float32), (8, 8), 0.5, True), 1.0).all()


def test_what_is_measured_of_a_block() -> None:
    slab = random(3, 16, 16)
    numbers = measure(slab, (8, 8), 0.3, True)
    block = slab[:, 8:, :8]
    assert numbers.mean[1, 0] == pytest.approx(block.mean(dtype=np.float64))
    assert numbers.foreground[1, 0] == pytest.approx((block > 0.3).mean())
    assert measure(slab, (8, 8), 0.3, False).foreground[1, 0] == pytest.approx((block <= 0.3).mean())
    assert np.allclose(numbers.histogram[1, 0], np.histogram(block, BINS, (0, 1))[0] / block.size)


def test_histograms_take_1_into_the_last_bin() -> None:
    assert np.flatnonzero(histograms(np.array([[0.0, 1.0, 0.5]]), 4)[0]).tolist() == [0, 2, 3]


def test_the_earth_movers_distance_is_scipys() -> None:
    one, other = (np.random.default_rng(seed).dirichlet(np.ones(BINS)) for seed in (1, 2))
    places = np.arange(BINS) / (BINS - 1)
    assert earth_movers_distance(one, other) == pytest.approx(wasserstein_distance(places, places, one, other))
    black, white = np.eye(BINS)[0], np.eye(BINS)[-1]
    assert earth_movers_distance(black, white) == pytest.approx(1)
    assert earth_movers_distance(np.stack([black, white]), black).tolist() == pytest.approx([0, 1])


def test_distances_to_a_target() -> None:
    target = Target(np.eye(BINS)[0], np.array([0.0, 0.5]))
    likeness = Likeness(target=Path("b"), share=1, intensity_weight=2, foreground_weight=3)
    shares, histogram = np.array([0.0, 0.25, 1.0]), np.eye(BINS)[[0, 0, -1]]
    expected = [0 + 3 * 0.25, 0 + 3 * 0.25, 2 * 1 + 3 * 0.75]
    assert target.distances(histogram, shares, likeness).tolist() == pytest.approx(expected)


def test_the_nearest_are_kept() -> None:
    distances = np.array([0.3, 0.1, 0.2, 0.1, 0.9])
    some = Likeness(target=Path("b"), share=0.4)
    assert nearest(distances, some).tolist() == [False, True, False, True, False]
    assert nearest(distances, some.model_copy(update={"share": 0.01})).tolist() == [False, True, False, False, False]
    near = Likeness(target=Path("b"), most_distance=0.2)
    assert nearest(distances, near).tolist() == [False, True, True, True, False]
    assert nearest(np.zeros(0), some).tolist() == []


def test_otsus_threshold_parts_two_classes() -> None:
    values = np.clip(np.concatenate([random(5000) * 0.2 + 0.1, random(3000) * 0.2 + 0.6]), 0, 1)
    threshold = otsu(histograms(values[None], BINS)[0])
    assert 0.3 <= threshold <= 0.6
    mixed = np.clip(np.random.default_rng(1).normal(np.repeat([0.3, 0.6], 20000), 0.1), 0, 1)
    assert otsu(histograms(mixed[None], BINS)[0]) == pytest.approx(threshold_otsu(mixed, BINS), abs=1.5 / BINS)


def test_sections_are_resized_by_means_and_labels_by_the_nearest() -> None:
    slab = random(2, 12, 16)
    assert resized(slab, 1.0) is slab
    assert resized(slab, 0.5).shape == (2, 6, 8)
    flat = np.full((1, 12, 16), 0.25, np.float32)
    assert np.allclose(resized(flat, 0.3), 0.25)
    assert resized(flat, 0.3).shape == (1, 4, 5)
    assert float(resized(slab, 0.25).mean()) == pytest.approx(float(slab.mean()), abs=0.02)
    labels = np.arange(2 * 4 * 4).reshape(2, 4, 4)
    assert np.array_equal(resized(labels, 2.0, nearest=True), labels.repeat(2, 1).repeat(2, 2))
    assert np.array_equal(resized(resized(labels, 3.0, nearest=True), 1 / 3, nearest=True), labels)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"likeness": {"target": "b"}}, "share and most_distance: expected one of the two"),
        ({"likeness": {"target": "b", "share": 0.5, "most_distance": 1}}, "expected one of the two"),
        ({"likeness": {"target": "b", "share": 0}}, "greater than 0"),
        (
            {"likeness": {"target": "b", "share": 1, "intensity_weight": 0, "foreground_weight": 0}},
            "expected one above",
        ),
        ({"scale": 0}, "greater than 0"),
        ({"patch": [128]}, "Field required"),
    ],
)
def test_settings_of_no_filter_are_refused(keys: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PatchFilter.model_validate(keys)
