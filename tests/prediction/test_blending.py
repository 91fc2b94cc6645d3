"""Windows of overlapping outputs, and grids of tiles that overlap, on paper."""

import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.common.geometry import Roi
from emsuite.models.receptive_field import ReceptiveField
from emsuite.prediction.blending import BLENDINGS, Blended, GridWeights, gaussian, linear, make_tiling, weights_along
from emsuite.prediction.tile_grid import TileGrid
from emsuite.prediction.tiling import BY_STRIDE, Original, even_input_shape

# along each axis: inputs of 14, 18, 22, ... voxels; 4, 8, 12, ... come out
REACH = ReceptiveField((14, 14, 14), (4, 4, 4), (10, 10, 10), (5, 5, 5))


def test_windows_on_paper() -> None:
    np.testing.assert_allclose(linear(8), [0.125, 0.375, 0.625, 0.875, 0.875, 0.625, 0.375, 0.125])
    np.testing.assert_allclose(linear(3), [1 / 3, 1, 1 / 3])
    assert gaussian(17)[8] == 1
    assert gaussian(17)[[0, 16]] == pytest.approx(np.exp(-0.5 * (8 / (17 / 8)) ** 2))


@pytest.mark.parametrize("name", BLENDINGS)
@pytest.mark.parametrize("width", [1, 2, 3, 12, 400])
def test_windows_are_symmetric_and_above_zero(name: str, width: int) -> None:
    window = BLENDINGS[name](width)
    assert window.shape == (width,)
    assert window.min() > 0
    np.testing.assert_allclose(window, window[::-1])


def test_two_linear_windows_that_overlap_by_half_add_up_to_one() -> None:
    window = linear(12)
    np.testing.assert_allclose(window[:6] + window[6:], 1)


@pytest.mark.parametrize("name", BLENDINGS)
@pytest.mark.parametrize(("width", "advance"), [(4, 4), (8, 4), (12, 8), (200, 100)])
def test_weights_add_up_to_one_at_every_voxel(name: str, width: int, advance: int) -> None:
    begins = range(-8, -8 + 5 * advance, advance)
    total = np.zeros(4 * advance + width)
    for begin, weights in weights_along(begins, width, BLENDINGS[name]).items():
        total[begin + 8 :][:width] += weights
    np.testing.assert_allclose(total, 1, rtol=1e-14)


def test_a_seam_between_two_levels_becomes_a_ramp() -> None:
    """The first output is 10, the second one 18: the four voxels that both hold rise by 2 each, from 11 to 17."""
    weights = weights_along([0, 4], 8, linear)
    values = np.zeros(12)
    values[:8] += 10 * weights[0]
    values[4:] += 18 * weights[4]
    np.testing.assert_allclose(values, [10] * 4 + [11, 13, 15, 17] + [18] * 4)


def test_weights_of_a_grid_are_products_of_its_axes() -> None:
    tiling, roi = Blended("gaussian"), Roi((4, 0, 0), (16, 20, 12))
    tiles = tiling.grid(REACH, (18, 22, 22), roi, roi)
    weights, total = GridWeights(tiles, (8, 12, 12), gaussian), np.zeros((40, 40, 40))
    for tile in tiles:
        total[tuple(slice(b, b + n) for b, n in zip(tile.begin, (8, 12, 12), strict=True))] += weights.of(tile)
    np.testing.assert_allclose(total[roi.to_slices()], 1, rtol=1e-14)


def along(shape: int, roi: range) -> list[tuple[int, int, int]]:
    whole = Roi((roi.start, 0, 0), (len(roi), 4, 4))
    tiles = Blended("linear").grid(REACH, (shape, 14, 14), whole, whole)
    return [(tile.begin[0], tile.keep_begin[0], tile.keep_begin[0] + tile.keep_shape[0]) for tile in tiles]


def test_a_blended_grid_on_paper() -> None:
    """Outputs of 8 advance by 4, of 12 by 8, of 4 by 4; all begin at multiples of the stride of 4."""
    assert along(18, range(20)) == [(0, 0, 8), (4, 4, 12), (8, 8, 16), (12, 12, 20)]
    assert along(18, range(6, 15)) == [(4, 6, 12), (8, 8, 15)]
    assert along(22, range(21)) == [(0, 0, 12), (8, 8, 20), (16, 16, 21)]
    assert along(14, range(9)) == [(0, 0, 4), (4, 4, 8), (8, 8, 9)]
    assert along(30, range(9)) == [(0, 0, 9)]


@pytest.mark.parametrize("first", range(5))
def test_blended_tiles_stay_as_they_are_when_evened_again(first: int) -> None:
    tiling = Blended("linear")
    for n in range(1, 60):
        for largest in (14, 18, 22, 30, 50):
            roi = Roi((first, 0, 0), (n, 4, 4))
            tile = tiling.input_shape(REACH, (largest,) * 3, roi)
            assert tiling.input_shape(REACH, tile, roi) == tile
            assert tile[0] <= largest
    assert tiling.input_shape(REACH, (26, 26, 26), Roi((0, 0, 0), (20, 16, 3))) == even_input_shape(
        REACH, (26, 26, 26), (0, 0, 0), (20, 16, 3)
    )


def test_the_command_line_names_the_tiling() -> None:
    assert make_tiling("stride", False, "crop") is BY_STRIDE
    assert make_tiling("original", True, "crop") == Original(valid=True)
    assert make_tiling("original", False, "crop", margin="whole") == Original(valid=True, whole_context=True)
    assert make_tiling("stride", False, "crop", margin="whole") is BY_STRIDE
    assert Original(True, True).name == "original, valid, whole context"
    assert make_tiling("stride", False, "linear", (48, 48, 48)).name == "stride, linear"
    assert [BY_STRIDE.name, Original().name, Original(valid=True).name] == ["stride", "original", "original, valid"]
    with pytest.raises(BadInput, match=r"^--blend gaussian: original tiles do not overlap; leave out one of the two$"):
        make_tiling("original", False, "gaussian")


def test_a_tile_s_output_is_weighed_from_its_begin_on() -> None:
    tiles = TileGrid([[(0, 0, 1)], [(0, 0, 1)], [(0, 1, 3), (2, 2, 4)]])
    weights = GridWeights(tiles, (1, 1, 4), linear)
    np.testing.assert_allclose(weights.of(tiles[0])[0, 0], [1, 1, 0.75, 0.25])
    np.testing.assert_allclose(weights.of(tiles[1])[0, 0], [0.25, 0.75, 1, 1])
