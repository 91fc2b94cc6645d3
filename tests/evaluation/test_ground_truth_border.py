"""The border of labels that is no ground truth, beside what the CREMI challenge leaves out."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from emsuite.evaluation.ground_truth import in_border, margin_of

SIZE = (40, 4, 4)


def stripes(widths=(6, 6), height=5):
    return np.repeat(np.arange(1, len(widths) + 1), widths)[None, None].repeat(height, 1).astype(np.uint64)


def test_a_straight_border_on_paper():
    def left_out(width):
        return np.flatnonzero(in_border(stripes(), width, SIZE)[0, 2]).tolist()

    assert left_out(0) == []
    assert left_out(1) == left_out(3.9) == [5, 6]  # less than a voxel: the two voxels that touch
    assert left_out(4) == left_out(7.9) == [4, 5, 6, 7]
    assert left_out(8) == [3, 4, 5, 6, 7, 8]
    assert left_out(25) == list(range(12))  # 6 voxels on, on either side


def test_sections_are_taken_alone_and_the_edge_of_the_volume_is_no_border():
    labels = np.stack([np.full((5, 6), 1), np.full((5, 6), 2)])
    assert not in_border(labels, 1000, SIZE).any()


def test_voxels_may_be_longer_along_one_axis():
    labels = np.ones((1, 9, 9), int)
    labels[0, 4, 4] = 2
    found = in_border(labels, 10, (40, 10, 4))[0]
    assert np.flatnonzero(found[:, 4]).tolist() == [2, 3, 4, 5, 6]  # 10 nm beyond the neighbours of the voxel
    assert np.flatnonzero(found[4]).tolist() == [1, 2, 3, 4, 5, 6, 7]  # 8 of them


def by_cremi_python(image, most):
    """The mask of one section as cremi/cremi_python has it, in evaluation/border_mask.py (in this port's words)."""
    around = np.pad(image, 1, mode="edge")
    rows = (image == around[:-2, 1:-1]) & (image == around[2:, 1:-1])
    columns = (image == around[1:-1, :-2]) & (image == around[1:-1, 2:])
    return distance_transform_edt(rows & columns) <= max(most, 0)


@pytest.mark.parametrize("width", [1, 4, 8, 10, 25])
def test_as_cremi_python(width):
    labels = np.kron(np.random.default_rng(width).integers(0, 9, (4, 5, 6)), np.ones((1, 16, 16), int))
    expected = np.stack([by_cremi_python(section, width / 4) for section in labels])
    assert 0.02 < expected.mean() < 0.99
    np.testing.assert_array_equal(in_border(labels, width, SIZE), expected)


def test_voxels_of_no_whole_number_of_nanometres():
    for n in range(1, 12):
        found = in_border(stripes((20, 20)), 4.9 * n, (50, 4.9, 4.9))[0, 2]
        assert found.sum() == 2 * (n + 1)


def test_the_margin_decides_on_the_border():
    labels = np.kron(np.random.default_rng(0).integers(0, 9, (1, 5, 6)), np.ones((1, 16, 16), int))
    for width in (0, 1, 4, 25):
        _, y, x = margin_of(width, SIZE)
        part = labels[:, 30 - y : 40 + y, 40 - x : 60 + x]
        inner = in_border(part, width, SIZE)[:, y : y + 10, x : x + 20]
        np.testing.assert_array_equal(inner, in_border(labels, width, SIZE)[:, 30:40, 40:60])
    assert margin_of(0, SIZE) == (0, 0, 0)
    assert margin_of(25, SIZE) == (0, 7, 7)
