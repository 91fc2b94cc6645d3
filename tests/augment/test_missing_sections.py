"""Sections that are missing, pale, dark or hidden by an artifact."""

import random as std_random

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from emsuite.augment.missing_sections import MissingSections

NAMED = {"name": "missing_sections"}
FROM = {"volume": "artifacts.hdf"}


class Stripes:
    """Artifacts of the value 1 that hide the left half, by a random share."""

    def draw(self, random):
        opacity = torch.zeros(6, 8)
        opacity[:, :4] = random.random()
        return torch.ones(6, 8), opacity


def test_rates_and_looks_of_lost_sections():
    original = torch.rand(4000, 2, 2) * 0.5 + 0.25
    raw = original.clone()
    settings = MissingSections(name="missing_sections", missing=0.1, low_contrast=0.2, contrast=0.1)
    settings.apply(raw, np.random.default_rng(0))
    missing = (raw == 0).all(dim=(1, 2)).float().mean()
    pale = raw.std(dim=(1, 2)) / original.std(dim=(1, 2))
    assert missing == pytest.approx(0.1, abs=0.02)
    assert ((pale - 0.1).abs() < 1e-4).float().mean() == pytest.approx(0.2, abs=0.025)
    assert ((pale - 1).abs() < 1e-4).float().mean() == pytest.approx(0.7, abs=0.03)
    kept = (raw != 0).all(dim=(1, 2))
    torch.testing.assert_close(raw[kept].mean(dim=(1, 2)), original[kept].mean(dim=(1, 2)))


def test_dark_sections_are_a_fraction_of_themselves():
    original = torch.rand(2000, 6, 8) * 0.8 + 0.1
    raw = original.clone()
    settings = MissingSections(**NAMED, missing=0, dark=0.3, brightness=(0.2, 0.4))
    settings.apply(raw, np.random.default_rng(0))
    factor = (raw / original).amax(dim=(1, 2))
    torch.testing.assert_close(raw, original * factor[:, None, None])
    is_dark = factor < 0.99
    assert is_dark.float().mean() == pytest.approx(0.3, abs=0.03)
    assert factor[is_dark].aminmax() == (pytest.approx(0.2, abs=0.01), pytest.approx(0.4, abs=0.01))


def test_artifacts_hide_what_lies_below_by_their_opacity():
    raw = torch.full((2000, 6, 8), 0.25)
    settings = MissingSections(**NAMED, missing=0, artifact=0.2, artifacts=FROM).with_source(Stripes())
    settings.apply(raw, np.random.default_rng(1))
    assert (raw[:, :, 4:] == 0.25).all()
    left = raw[:, :, 0]
    assert (left == left[:, :1]).all()
    assert (left[:, 0] != 0.25).float().mean() == pytest.approx(0.2, abs=0.03)
    assert left.max() == pytest.approx(1, abs=0.01)


def defects_of_gunpowder(raw, settings, artifacts):
    """The lines of gunpowder's DefectAugment, section by section, with Python's own random numbers (seeded outside)."""
    for c in range(len(raw)):
        r = std_random.random()
        if r < settings.missing:
            raw[c] = 0
        elif r < settings.missing + settings.low_contrast:
            mean = raw[c].mean()
            raw[c] = (raw[c] - mean) * settings.contrast + mean
        elif r < settings.missing + settings.low_contrast + settings.artifact:
            values, alpha = next(artifacts)
            raw[c] = raw[c] * (1.0 - alpha) + values * alpha


def test_each_section_becomes_what_gunpowder_makes_of_it_for_the_same_numbers():
    settings = MissingSections(**NAMED, missing=0.2, low_contrast=0.2, contrast=0.5, artifact=0.3, artifacts=FROM)
    raw, rng = torch.rand(60, 6, 8), np.random.default_rng(3)
    given = [(rng.random((6, 8), np.float32), rng.random((6, 8), np.float32)) for _ in range(60)]
    expected, source = raw.numpy().copy(), iter(given)
    std_random.seed(5)
    defects_of_gunpowder(expected, settings, iter(given))

    class Same:
        def random(self, size):
            std_random.seed(5)
            return np.array([std_random.random() for _ in range(size)])

    class Given:
        def draw(self, random):
            return tuple(map(torch.from_numpy, next(source)))

    settings.with_source(Given()).apply(raw, Same())
    np.testing.assert_allclose(raw.numpy(), expected, atol=1e-6)


def test_the_draws_of_settings_without_artifacts_and_dark_sections_are_the_former():
    """One number per section and no more: augmentations behind this one keep their draws."""
    random, other = np.random.default_rng(2), np.random.default_rng(2)
    MissingSections(**NAMED, missing=0.3, low_contrast=0.3).apply(torch.rand(9, 2, 2), random)
    other.random(9)
    assert random.random() == other.random()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"missing": 0.6, "low_contrast": 0.5}, "at most 1"),
        ({"missing": 0.5, "dark": 0.6}, "at most 1"),
        ({"artifact": 0.1}, "expected artifacts too"),
        ({"brightness": (0.5, 0.1)}, "lowest, highest"),
    ],
)
def test_settings_without_a_meaning_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        MissingSections(**NAMED, **wrong)
