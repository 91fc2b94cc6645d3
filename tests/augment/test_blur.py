"""Sections out of focus."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from emsuite.augment.blur import Blur


def test_a_gaussian_in_the_plane():
    raw = torch.rand(3, 20, 24)
    expected = gaussian_filter(raw.double().numpy(), (0, 1.3, 1.3), mode="mirror", truncate=3)
    Blur(name="blur", probability=1, sigma=(1.3, 1.3)).apply(raw, np.random.default_rng(0))
    np.testing.assert_allclose(raw.numpy(), expected, atol=1e-5)


def test_no_blur_by_chance_by_width_or_where_there_is_no_plane():
    for settings, shape in (({"probability": 0}, (2, 8, 8)), ({"sigma": (0, 0)}, (2, 8, 8)), ({}, (4, 1, 1))):
        raw = torch.rand(shape)
        kept = raw.clone()
        for seed in range(5):
            Blur(name="blur", **settings).apply(raw, np.random.default_rng(seed))
        assert torch.equal(raw, kept)
