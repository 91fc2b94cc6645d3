"""Skeletons of labels: a straight tube's cable, in one block and in two, and circles that joining makes."""

import numpy as np
import pytest

from emsuite.export.mesh import UNITS
from emsuite.export.skeletons import Skeleton, cable_length, join, skeletonize

SIZE = (8.0, 8.0, 8.0)


def tube(length: int) -> np.ndarray:
    y, x = np.mgrid[-6:7, -6:7]
    return np.repeat(((y**2 + x**2 <= 16).astype(np.uint32))[None], length, axis=0)


def test_a_straight_tube_has_its_length() -> None:
    ((label, found),) = skeletonize(tube(200), SIZE)
    assert label == 1
    assert cable_length(found, SIZE) == pytest.approx(1600, rel=0.04)
    assert (found.nodes % UNITS == UNITS // 2).all(), "centres of voxels"


def test_a_tube_in_two_blocks_is_one_tree_of_its_length() -> None:
    labels = tube(200)
    ((_, front),) = skeletonize(labels[:101], SIZE)
    ((_, back),) = skeletonize(labels[100:], SIZE)
    joined = join([front, back._replace(nodes=back.nodes + np.array([0, 0, 100 * UNITS]))], SIZE)
    assert len(joined.edges) == len(joined.nodes) - 1
    assert cable_length(joined, SIZE) == pytest.approx(1600, rel=0.04)


def test_joining_opens_circles_and_leaves_out_lone_nodes() -> None:
    corners = np.array([[0, 0, 0], [50, 0, 0], [50, 50, 0], [0, 50, 0]]) * UNITS
    radius = np.ones(3, np.float32)
    path = np.array([[0, 1], [1, 2]])
    joined = join([Skeleton(corners[:3], radius, path), Skeleton(corners[[2, 3, 0]], radius, path)], SIZE)
    assert (len(joined.nodes), len(joined.edges)) == (4, 3)
    assert cable_length(joined, SIZE) == 3 * 50 * 8
    alone = join([Skeleton(corners[:1], radius[:1], np.zeros((0, 2), np.int64))], SIZE)
    assert (len(alone.nodes), cable_length(alone, SIZE)) == (0, 0.0)
