"""Sums of a row of blocks: what is written when, and how much lies in memory."""

import numpy as np

from emsuite.common.geometry import Roi
from emsuite.prediction.blended_rows import RowSums
from emsuite.prediction.blending import Blended, GridWeights, linear
from emsuite.prediction.tile_grid import Tile, TileGrid


def row(n: int, width: int = 8, advance: int = 4) -> TileGrid:
    """Tiles along x whose outputs are one section high and wide."""
    along = [(b, b, min(width, n - b)) for b in range(0, n - width + advance, advance)]
    return TileGrid([[(0, 0, 1)], [(0, 0, 1)], along])


def blended(values: list[float], n: int) -> tuple[np.ndarray, list[tuple[int, int]], int]:
    """Blend outputs of one value each; returns the row, the pieces that it was written in and the most values held."""
    tiles, written, pieces, most = row(n), np.full(n, np.nan, np.float32), [], 0
    weights = GridWeights(tiles, (1, 1, 8), linear)

    def write(region: Roi, arrays: dict[str, np.ndarray]) -> None:
        assert arrays["affs"].dtype == np.float32
        written[region.begin[2] : region.end[2]] = arrays["affs"][0, 0, 0]
        pieces.append((region.begin[2], region.end[2]))

    sums = RowSums(Roi((0, 0, 0), (1, 1, n)), 4, 8, write)
    for tile, value in zip(tiles, values, strict=True):
        sums.advance(tile)
        sums.add(tile, weights.of(tile), {"affs": np.full((1, 1, 1, 8), value, np.float32)})
        most = max(most, sums._sums["affs"].size)
    sums.finish()
    return written, pieces, most


def test_a_ramp_leads_over_every_seam() -> None:
    values, pieces, _ = blended([1, 2, 1], 16)
    ramp = [1.125, 1.375, 1.625, 1.875]
    np.testing.assert_array_equal(values, [1] * 4 + ramp + ramp[::-1] + [1] * 4)
    assert pieces == [(0, 4), (4, 8), (8, 16)]  # each as soon as the next tile begins behind it


def test_a_constant_stays_exactly_what_it_is() -> None:
    for value in (0.5, 1 / 3, 0.1, 127.5 / 255):
        values, _, _ = blended([value] * 24, 99)
        np.testing.assert_array_equal(values, np.float32(value))


def test_memory_is_that_of_a_tile_however_long_the_row() -> None:
    assert blended([1.0] * 24, 100)[2] == blended([1.0] * 249, 1000)[2] == 12


def test_bytes_per_value_are_those_of_a_row_of_four_by_four_shards() -> None:
    """Outputs of 8x8x8 advance by 4: the sums cover 16x16 along z and y, and 12 along x, in float64."""
    sums = RowSums(Roi((0, 0, 0), (16, 16, 100)), 4, 8, lambda *_: None)
    tile = Tile((0, 0, 0), (0, 0, 0), (8, 8, 8))
    sums.add(tile, np.ones((8, 8, 8)), {"affs": np.ones((1, 8, 8, 8), np.float32)})
    assert sums._sums["affs"].nbytes == Blended("linear").bytes_per_value * 8**3
