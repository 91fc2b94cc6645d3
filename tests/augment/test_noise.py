"""Gaussian noise."""

import numpy as np
import pytest
import torch

from emsuite.augment.noise import Noise


def test_noise_has_the_sigma_drawn_and_the_same_generator_draws_the_same():
    settings = Noise(name="noise", sigma=(0.05, 0.05))
    first, second, other = (torch.full((8, 64, 64), 0.5) for _ in range(3))
    for raw, seed in ((first, 1), (second, 1), (other, 2)):
        settings.apply(raw, np.random.default_rng(seed))
    assert first.std() == pytest.approx(0.05, rel=0.02)
    assert first.mean() == pytest.approx(0.5, abs=2e-3)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_clipped_to_the_range_of_raw():
    raw = torch.zeros(4, 16, 16)
    Noise(name="noise", sigma=(1, 1)).apply(raw, np.random.default_rng(0))
    assert (raw.min(), raw.max()) == (0, 1)
