import edt
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, maximum_filter

from emsuite.segmentation.distance_transform import local_maxima, squared_distance


def test_distance_to_one_voxel_outside():
    inside = np.ones((5, 6, 7), bool)
    inside[1, 2, 3] = False
    z, y, x = np.indices(inside.shape)
    np.testing.assert_array_equal(squared_distance(inside), (z - 1) ** 2 + (y - 2) ** 2 + (x - 3) ** 2)


def test_nothing_outside_is_as_far_as_can_be():
    assert (squared_distance(np.ones((3, 4, 5), bool)) == 2**30).all()
    assert not squared_distance(np.zeros((3, 4, 5), bool)).any()
    assert squared_distance(np.ones((0, 4, 5), bool)).shape == (0, 4, 5)


@pytest.mark.parametrize("shape", [(20, 30, 40), (1, 50, 60), (3, 1, 200), (70, 2, 1)])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5])
def test_as_scipy_and_edt_measure_it(shape, share):
    inside = np.random.default_rng(0).random(shape) > share
    inside[0, 0, 0] = False
    found = squared_distance(inside)
    np.testing.assert_array_equal(found, np.rint(distance_transform_edt(inside) ** 2))
    np.testing.assert_array_equal(found, edt.edtsq(inside))


def test_a_plateau_is_a_maximum_and_a_slope_is_none():
    values = np.array([[[0, 1, 2, 2, 1, 0, 0, 0, 0, 0, 1]]], np.int32)
    expected = [False, False, True, True, False, False, True, True, True, False, True]
    assert local_maxima(values, (3, 3, 3)).ravel().tolist() == expected


@pytest.mark.parametrize("width", [(1, 1, 1), (10, 10, 10), (1, 7, 7), (2, 3, 4), (64, 64, 64)])
@pytest.mark.parametrize("shape", [(20, 30, 40), (1, 9, 50), (4, 4, 4)])
def test_maxima_are_those_of_scipys_filter(shape, width):
    values = np.random.default_rng(0).integers(0, 50, shape, np.int32)
    np.testing.assert_array_equal(local_maxima(values, width), maximum_filter(values, width) == values)
