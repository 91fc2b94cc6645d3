"""Tiles along an axis: where they lie, what they read, and weights that sum to one everywhere."""

import numpy as np
import pytest

from emsuite.models.unet_settings import UNetSettings
from emsuite.prediction.blending import gaussian
from emsuite.prediction.plate.axes import make_axis, ramp, weights_of

SAME = UNetSettings(num_fmaps=2, downsample_factors=[[1, 2, 2], [1, 2, 2]], padding="same")
VALID = UNetSettings(num_fmaps=2, downsample_factors=[[1, 2, 2]], padding="valid")


def test_a_ramp_is_the_originals() -> None:
    assert ramp(3)(8).tolist() == [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25]
    assert ramp(0)(3).tolist() == [1, 1, 1]


@pytest.mark.parametrize("window", [ramp(6), gaussian], ids=["linear", "gaussian"])
@pytest.mark.parametrize("length", [20, 33, 47, 64, 100])
def test_weights_sum_to_one_everywhere(window, length: int) -> None:
    axis = make_axis(SAME, 1, length, 20, 6)
    weights, total = weights_of(axis, window), np.zeros(length)
    for piece in axis.pieces:
        total[piece.start : piece.start + piece.length] += weights[piece.start]
    np.testing.assert_allclose(total, 1, rtol=1e-12)


def test_an_overlap_has_the_originals_weights() -> None:
    axis = make_axis(SAME, 1, 34, 20, 6)
    first, second = weights_of(axis, ramp(6)).values()
    np.testing.assert_allclose(second[:6], np.arange(1, 7) / 7)
    np.testing.assert_allclose(first[-6:], 1 - np.arange(1, 7) / 7)
    assert (first[:14] == 1).all()


@pytest.mark.parametrize("unet", [SAME, VALID], ids=["same", "valid"])
@pytest.mark.parametrize("length", [5, 31, 64, 90])
@pytest.mark.parametrize("tile", [None, 16])
def test_tiles_cover_the_image_and_read_legal_inputs_from_multiples_of_the_stride(unet, length: int, tile) -> None:
    axis = make_axis(unet, 2, length, tile, 4 if tile else 0)
    stride = unet.stride[2]
    padded = sum(axis.around) + length
    covered = np.zeros(length, bool)
    for piece in axis.pieces:
        covered[piece.start : piece.start + piece.length] = True
        assert piece.begin % stride == 0
        assert 0 <= piece.begin < piece.end <= padded
        assert piece.skipped >= 0
    assert covered.all()
