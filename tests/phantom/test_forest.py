"""Trees of neurites: parents and children, and their tubes."""

import numpy as np

from emsuite.phantom.forest import Forest


def y_shaped() -> Forest:
    """A trunk of three nodes along x, with a thin branch of two nodes from its middle along y."""
    forest = Forest()
    forest.add(np.array([[0.0, 0, 0], [0, 0, 100], [0, 0, 200]]), np.array([50.0, 60, 50]), -1, 7)
    forest.add(np.array([[0.0, 80, 100], [0, 160, 100]]), np.array([20.0, 20]), 1, 7)
    return forest


def test_a_chain_hangs_on_its_parent():
    forest = y_shaped()
    assert forest.parents == [-1, 0, 1, 1, 3]
    assert forest.neurons == [7] * 5
    assert len(forest) == 5


def test_a_tube_goes_from_each_nodes_parent_to_it():
    tubes = y_shaped().tubes()
    assert np.array_equal(tubes.starts[0], tubes.ends[0])  # the root is a ball
    assert np.array_equal(tubes.starts[4], [0, 80, 100])
    assert np.array_equal(tubes.radii, [[50, 50], [50, 60], [60, 50], [20, 20], [20, 20]])
    assert set(tubes.values) == {7}


def test_tubes_of_some_nodes_take_the_values_given():
    tubes = y_shaped().tubes(range(3, 5), [11, 12])
    assert list(tubes.values) == [11, 12]
    assert len(tubes) == 2


def test_upstream_goes_to_the_root_for_a_length_or_while_there_is_room():
    forest = y_shaped()
    assert list(forest.upstream(4, np.inf, 0)) == [4, 3, 1, 0]
    assert list(forest.upstream(4, 100, 0)) == [4, 3]  # 80 nm to node 3, 80 nm more to node 1
    assert list(forest.upstream(2, np.inf, 55)) == []
    assert list(forest.upstream(2, np.inf, 45)) == [2, 1, 0]
