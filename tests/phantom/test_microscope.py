"""Blur, sections, noise: each does what its setting says."""

import numpy as np
import pytest
from scipy import ndimage

from emsuite.phantom.microscope import choose_sections, draw_shifts, expose, project, shift_sections, stain

RNG = np.random.default_rng


def test_projection_averages_the_fine_voxels():
    fine = RNG(0).random((8, 6, 4), dtype=np.float32)
    coarse = project(fine, np.zeros(3), np.array([4, 2, 1]))
    expected = fine.reshape(2, 4, 3, 2, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(coarse, expected, rtol=1e-5)


def test_blur_is_scipys_gaussian():
    fine = RNG(0).random((12, 12, 12), dtype=np.float32)
    blurred = project(fine, np.array([0.5, 1, 2]), np.ones(3, int))
    np.testing.assert_allclose(blurred, ndimage.gaussian_filter(fine, [0.5, 1, 2], truncate=3), rtol=1e-5)


def test_shot_noise_has_its_deviation_at_mid_grey_and_grows_with_the_signal():
    deviations = [expose(np.full((20, 100, 100), grey, np.float32), 8, 0, RNG(0)).std() for grey in (65, 130, 195)]
    assert abs(deviations[1] - 8) < 0.3
    assert deviations[0] < 7.3 < 8.5 < deviations[2]


def test_sections_differ_by_their_jitter():
    raw = expose(np.full((400, 10, 10), 130, np.float32), 0, 12, RNG(0))
    assert abs(raw.mean(axis=(1, 2)).std() - 12) < 1.5
    assert raw.std(axis=(1, 2)).max() == 0


def test_grey_values_clip_and_do_not_wrap():
    grey = np.stack([np.full((9, 9), -40.0), np.full((9, 9), 400.0)]).astype(np.float32)
    raw = expose(grey, 5, 0, RNG(0))
    assert raw.dtype == np.uint8
    assert raw[0].max() == 0
    assert raw[1].min() == 255


def test_staining_drifts_by_its_unevenness():
    grey = np.full((30, 60, 60), 130, np.float32)
    grey[:, ::2] = 180
    spacing = np.array([100.0, 100, 100])
    even, uneven, very = (stain(grey, spacing, amount, RNG(1)) for amount in (0, 1, 3))
    assert np.array_equal(even, grey)
    assert 2 < (uneven - grey)[:, 1::2].std() < 6
    assert np.allclose(very - grey, 3 * (uneven - grey), atol=0.01)


@pytest.mark.parametrize(("fraction", "count"), [(0, 0), (0.1, 4), (0.25, 10), (1, 40)])
def test_a_fraction_of_the_sections_is_chosen(fraction: float, count: int):
    chosen = choose_sections(fraction, 40, RNG(0))
    assert len(set(chosen)) == len(chosen) == count
    assert list(chosen) == sorted(chosen)


def test_shifts_reach_the_farthest_and_no_further():
    shifts = draw_shifts(0.5, np.array([3, 5]), 400, RNG(0))
    assert (shifts != 0).any(axis=1).sum() == 200
    assert np.array_equal(np.abs(shifts).max(axis=0), [3, 5])
    assert not draw_shifts(0, np.array([3, 5]), 400, RNG(0)).any()


def test_a_shifted_section_shows_what_lay_beside_it():
    volume = np.arange(3 * 10 * 12).reshape(3, 10, 12)
    shifts = np.array([[0, 0], [2, 0], [-1, 3]])
    moved = shift_sections(volume, shifts, np.array([2, 3]))
    assert moved.shape == (3, 6, 6)
    assert np.array_equal(moved[0], volume[0, 2:8, 3:9])
    assert np.array_equal(moved[1], volume[1, 0:6, 3:9])  # the tissue moved by +2 along y
    assert np.array_equal(moved[2], volume[2, 3:9, 0:6])
