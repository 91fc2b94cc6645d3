"""Smooth noise: its deviation, its length, its repeatability."""

import numpy as np
import pytest

from emsuite.phantom.smooth_noise import smooth_noise

SHAPE = (48, 60, 72)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.5, 4.0])
def test_mean_0_and_deviation_1(sigma: float):
    noise = smooth_noise(SHAPE, np.full(3, sigma), np.random.default_rng(0))
    assert noise.shape == SHAPE
    assert noise.dtype == np.float32
    independent = noise.size / max(1, 2 * np.sqrt(np.pi) * sigma) ** 3
    assert abs(noise.mean()) < 4 / np.sqrt(independent)
    assert 0.85 < noise.std() < 1.1


def test_it_is_alike_over_sigma_and_not_beyond():
    """White noise behind a Gaussian correlates as exp(-distance^2 / (4 sigma^2))."""
    noise = smooth_noise((80, 80, 80), np.array([1.0, 3.0, 8.0]), np.random.default_rng(1))
    for axis, sigma in enumerate((1, 3, 8)):
        ahead, behind = (np.take(noise, range(*ends), axis) for ends in ((2 * sigma, 80), (0, 80 - 2 * sigma)))
        assert abs(np.corrcoef(ahead.ravel(), behind.ravel())[0, 1] - np.exp(-1)) < 0.12
        ahead, behind = (np.take(noise, range(*ends), axis) for ends in ((5 * sigma, 80), (0, 80 - 5 * sigma)))
        assert abs(np.corrcoef(ahead.ravel(), behind.ravel())[0, 1]) < 0.25


def test_wide_noise_has_deviation_1_over_many_draws():
    draws = [smooth_noise((12, 12, 12), np.full(3, 40.0), np.random.default_rng(seed)).mean() for seed in range(300)]
    assert 0.75 < np.std(draws) < 1.15


def test_the_same_generator_gives_the_same_noise():
    first, again, other = (smooth_noise(SHAPE, np.full(3, 3.0), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
