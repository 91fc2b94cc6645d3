"""Positions and regions, exact for voxels of any width."""

from fractions import Fraction

import numpy as np
import pytest
from funlib import geometry as whole

from emsuite.common.geometry import Coordinate, Roi, exact, json_numbers, on_grid, rounded


def test_voxels_of_a_fraction_of_a_nanometre_add_up() -> None:
    voxel_size = Coordinate(29.4, 4.6, 4.6)
    assert voxel_size * 1000 == Coordinate(29400, 4600, 4600)
    assert voxel_size * 100 / voxel_size == Coordinate(100, 100, 100)
    assert all(isinstance(n, int) for n in voxel_size * 100 / voxel_size)
    assert not any((voxel_size * 12345) % voxel_size)
    assert str(voxel_size) == "(29.4, 4.6, 4.6)"


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), 3.0, np.float32(3), Fraction(3)])
def test_whole_numbers_are_integers(value: object) -> None:
    assert exact(value) == 3
    assert isinstance(exact(value), int)


def test_floats_are_the_numbers_that_they_are_printed_as() -> None:
    assert exact(4.6) == Fraction(23, 5)
    assert rounded(np.float32(4.6)) == Fraction(23, 5)
    assert rounded(float(np.float32(29.4))) == Fraction(147, 5)
    assert rounded(123456789) == 123456789
    assert json_numbers(Coordinate(4.6, 8, Fraction(1, 4))) == [4.6, 8, 0.25]
    assert [type(n) for n in json_numbers((4.6, 8))] == [float, int]


def test_a_position_close_to_the_grid_lies_on_it() -> None:
    size = Coordinate(4.6, 4, 4)
    assert on_grid(Coordinate(46.004, 8.003, -4), size) == Coordinate(46, 8, -4)
    assert on_grid(Coordinate(46.005, 8, 0), size) == Coordinate(46.005, 8, 0)
    assert on_grid(Coordinate(48.3, 9, 1), size, Coordinate(2.3, 1, 1)) == Coordinate(48.3, 9, 1)


def test_regions_equal_those_of_funlib_where_all_is_whole() -> None:
    """Beside the library that counts in integers alone, on random regions."""
    random = np.random.default_rng(0)
    for _ in range(200):
        numbers = random.integers(-9, 30, (4, 3)).tolist()
        begin, other_begin = numbers[:2]
        shape, other_shape = np.abs(numbers[2:]).tolist()
        ours, theirs = (kind.Roi(begin, shape) for kind in (_Ours, whole))
        our_other, their_other = (kind.Roi(other_begin, other_shape) for kind in (_Ours, whole))
        assert ours.intersects(our_other) == theirs.intersects(their_other)
        assert ours.contains(our_other) == theirs.contains(their_other) or our_other.empty
        if ours.intersects(our_other):
            both, expected = ours.intersect(our_other), theirs.intersect(their_other)
            assert (tuple(both.begin), tuple(both.end)) == (tuple(expected.begin), tuple(expected.end))
        if not (ours.empty or our_other.empty):
            around, expected = ours.union(our_other), theirs.union(their_other)
            assert (tuple(around.begin), tuple(around.end)) == (tuple(expected.begin), tuple(expected.end))
        grown, expected = (
            ours.grow((1, 2, 3), (4, 5, 6)),
            theirs.grow(whole.Coordinate(1, 2, 3), whole.Coordinate(4, 5, 6)),
        )
        assert (tuple(grown.begin), tuple(grown.shape)) == (tuple(expected.begin), tuple(expected.shape))
        assert str(ours) == str(theirs) or ours.empty
        if min(begin) >= 0 and not ours.empty:
            assert ours.to_slices() == theirs.to_slices()


class _Ours:
    Roi = Roi


def test_other_axes_are_refused() -> None:
    with pytest.raises(ValueError, match="2 axes and a shape of 3"):
        Roi((0, 0), (1, 1, 1))
    with pytest.raises(ValueError, match="argument 2 is longer"):
        Coordinate(1, 2) + Coordinate(1, 2, 3)
