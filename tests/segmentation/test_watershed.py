import numpy as np
import pytest
from skimage.segmentation import watershed

from emsuite.segmentation.watershed import seeded_watershed


def test_a_ridge_divides_two_seeds():
    height = np.array([[[5, 1, 0, 1, 3, 4, 3, 0, 0, 2]]], np.uint32)
    seeds = np.array([[[0, 0, 7, 0, 0, 0, 0, 3, 0, 0]]])
    assert seeded_watershed(height, seeds).ravel().tolist() == [7, 7, 7, 7, 7, 3, 3, 3, 3, 3]


def test_a_plateau_divides_midway():
    seeds = np.zeros((1, 3, 9), int)
    seeds[:, :, 0], seeds[:, :, 8] = 1, 2
    labels = seeded_watershed(np.ones((1, 3, 9), np.uint8), seeds)
    assert (labels[..., :4] == 1).all()
    assert (labels[..., 5:] == 2).all()


def test_a_basin_without_a_seed_goes_to_the_lower_pass():
    height = np.array([[[0, 5, 1, 3, 0]]], np.uint16)
    seeds = np.array([[[1, 0, 0, 0, 2]]])
    assert seeded_watershed(height, seeds).ravel().tolist() == [1, 1, 2, 2, 2]


@pytest.mark.parametrize("shape", [(9, 11, 13), (1, 40, 40), (1, 1, 1), (3, 1, 200)])
def test_equal_to_scikit_image_where_no_heights_are_equal(shape):
    random = np.random.default_rng(1)
    height = random.permutation(np.prod(shape)).reshape(shape).astype(np.uint32)
    seeds = np.where(random.random(shape) < 0.02, random.integers(1, 2**20, shape), 0)
    seeds[0, 0, 0] = 5
    np.testing.assert_array_equal(seeded_watershed(height, seeds), watershed(height, seeds))


def test_without_seeds_there_are_no_labels():
    assert not seeded_watershed(np.ones((2, 3, 4), np.uint8), np.zeros((2, 3, 4), int)).any()
    assert seeded_watershed(np.ones((0, 3, 4), np.uint8), np.zeros((0, 3, 4), int)).shape == (0, 3, 4)
