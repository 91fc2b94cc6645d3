"""Sections that are missing or pale."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from emsuite.augment.missing_sections import MissingSections


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


def test_shares_that_exceed_one_are_refused():
    with pytest.raises(ValidationError, match="at most 1"):
        MissingSections(name="missing_sections", missing=0.6, low_contrast=0.5)
