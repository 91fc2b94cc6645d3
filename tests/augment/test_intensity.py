"""Brightness and contrast."""

from pathlib import Path

import numpy as np
import pytest
import torch

from emsuite.augment.intensity import Intensity

PEERS = Path(__file__).resolve().parents[1] / "fixtures" / "peers_targets.npz"


def test_scale_is_about_the_mean_and_shift_is_added():
    raw = torch.tensor([[[0.2, 0.4]], [[0.5, 0.9]]])
    Intensity(name="intensity", scale=(0.5, 0.5), shift=(0.1, 0.1)).apply(raw, np.random.default_rng(0))
    assert raw.flatten().tolist() == pytest.approx([0.45, 0.55, 0.6, 0.8])


def test_per_section_uses_each_sections_mean_and_draws_anew():
    raw = torch.tensor([[[0.2, 0.4]], [[0.5, 0.9]]])
    settings = Intensity(name="intensity", scale=(0, 0), shift=(0, 0), per_section=True)
    settings.apply(raw, np.random.default_rng(0))
    assert raw.flatten().tolist() == pytest.approx([0.3, 0.3, 0.7, 0.7])
    raw = torch.full((500, 2, 2), 0.5)
    Intensity(name="intensity", per_section=True).apply(raw, np.random.default_rng(0))
    shifts = raw[:, 0, 0] - 0.5
    assert (shifts.min(), shifts.max()) == (pytest.approx(-0.1, abs=5e-3), pytest.approx(0.1, abs=5e-3))
    assert shifts.std() == pytest.approx(0.2 / 12**0.5, rel=0.05)


def test_one_draw_for_all_sections_otherwise():
    raw = torch.full((5, 2, 2), 0.5)
    Intensity(name="intensity").apply(raw, np.random.default_rng(0))
    assert raw.unique().numel() == 1
    assert raw[0, 0, 0] != 0.5


def test_clipped_to_the_range_of_raw():
    raw = torch.linspace(0, 1, 8).view(2, 2, 2).clone()
    Intensity(name="intensity", scale=(3, 3), shift=(0, 0)).apply(raw, np.random.default_rng(0))
    assert (raw.min(), raw.max()) == (0, 1)


@pytest.mark.parametrize("per_section", [False, True])
def test_a_batch_changes_as_its_samples_do(per_section):
    step = Intensity(name="intensity", per_section=per_section, scale=(0.2, 3), shift=(-0.4, 0.4))
    raw = torch.rand(3, 4, 5, 6)
    expected = raw.clone()
    for number, sample in enumerate(expected):
        step.apply(sample, np.random.default_rng(number))
    randoms = [np.random.default_rng(number) for number in range(3)]
    step.apply_to_batch(raw, randoms)
    torch.testing.assert_close(raw, expected, atol=1e-6, rtol=0)
    others = [np.random.default_rng(number) for number in range(3)]
    for sample, other in zip(raw, others, strict=True):
        step.apply(sample, other)
    assert [random.random() for random in randoms] == [other.random() for other in others]


def test_sections_become_gunpowders_for_the_same_draws():
    with np.load(PEERS) as peers:
        raw, expected, drawn = (peers[name] for name in ("raw", "intensity", "intensity_draws"))

    class Recorded:
        columns = iter(drawn.T)

        def uniform(self, low, high, number):
            assert number == len(raw)
            return next(self.columns)

    found = torch.from_numpy(raw.copy())
    Intensity(name="intensity", scale=(0.4, 2.5), shift=(-0.4, 0.4), per_section=True).apply(found, Recorded())
    assert (expected == 0).any()
    assert (expected == 1).any()
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
