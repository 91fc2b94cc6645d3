"""Places to sample, against counting at every place."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import chisquare

from emsuite.data.sampling_locations import Locations


def brute_force(mask: np.ndarray, shape, padding, min_masked: float) -> set:
    padded = np.pad(mask != 0, [(p, p) for p in padding])
    places = set()
    for begin in product(*(range(n - s + 1) for n, s in zip(padded.shape, shape, strict=True))):
        box = padded[tuple(slice(b, b + s) for b, s in zip(begin, shape, strict=True))]
        if box.mean() >= min_masked:
            places.add(tuple(b - p for b, p in zip(begin, padding, strict=True)))
    return places


def l_shape() -> np.ndarray:
    mask = np.zeros((7, 9, 8), np.uint8)
    mask[:, :, :3] = 1
    mask[4:, 5:, :] = 255
    return mask


@pytest.mark.parametrize("padding", [(0, 0, 0), (2, 0, 3)])
@pytest.mark.parametrize("min_masked", [0, 0.5, 0.8, 1])
@pytest.mark.parametrize("mask", [l_shape(), np.ones((4, 5, 3)), np.random.default_rng(0).random((8, 6, 9)) > 0.6])
def test_all_good_places_are_drawn_and_no_others(mask, min_masked, padding):
    locations = Locations(mask, (3, 4, 2), padding, min_masked)
    expected = brute_force(mask, (3, 4, 2), padding, min_masked)
    assert len(locations) == len(expected)
    if expected:
        random = np.random.default_rng(0)
        drawn = {locations.draw(random) for _ in range(60 * len(expected) if len(expected) < 60 else 3000)}
        assert drawn <= expected
        if len(expected) < 60:
            assert drawn == expected


def test_every_place_is_drawn_equally_often():
    locations = Locations(l_shape(), (3, 4, 2), (1, 1, 1), 0.5)
    places = sorted(brute_force(l_shape(), (3, 4, 2), (1, 1, 1), 0.5))
    random = np.random.default_rng(1)
    counts = dict.fromkeys(places, 0)
    for _ in range(20 * len(places)):
        counts[locations.draw(random)] += 1
    assert chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize("mask", [np.zeros((5, 5, 5)), np.ones((2, 5, 5))])
def test_no_place_where_too_little_is_masked_in_or_the_box_does_not_fit(mask):
    assert len(Locations(mask, (3, 3, 3), (0, 0, 0), 0.5)) == 0


def test_a_position_is_in_or_out():
    mask = np.zeros((5, 6, 7), np.uint8)
    mask[1:4, 2:, 1:5] = 1
    locations = Locations(mask, (2, 2, 2), (1, 1, 1), 0.5)
    padded = np.pad(mask, 1)
    for z, y, x in np.ndindex(7, 8, 9):
        inside = z < 6 and y < 7 and x < 8 and padded[z : z + 2, y : y + 2, x : x + 2].sum() >= 4
        assert ((z - 1, y - 1, x - 1) in locations) == inside, (z, y, x)
    assert (-2, 0, 0) not in locations
