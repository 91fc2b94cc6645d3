"""Skeletons from trees: nodes in their own label, whole where they can be, moved with their section."""

import numpy as np

from emsuite.phantom.forest import Forest
from emsuite.phantom.skeletons import trace

VOXEL = np.array([10.0, 10.0, 10.0])
STILL = np.zeros((10, 3))


def straight(count: int = 5) -> Forest:
    """One neuron (number 4) along x, a node in the middle of every second voxel of (5, 5, :)."""
    forest = Forest()
    positions = np.array([[55.0, 55.0, 20.0 * i + 5] for i in range(count)])
    forest.add(positions, np.full(count, 15.0), -1, 4)
    return forest


def numbers(label: int = 1) -> np.ndarray:
    table = np.zeros(10, np.uint64)
    table[4] = label
    return table


def test_a_straight_neurite_is_one_chain():
    skeletons = trace(straight(), numbers(), np.ones((10, 10, 10), np.uint64), VOXEL, STILL)
    assert list(skeletons.ids) == [1, 2, 3, 4, 5]
    assert set(skeletons.skeleton) == {1}
    assert skeletons.lengths.sum() == 80
    assert set(skeletons.radius) == {15.0}


def test_nodes_outside_the_volume_are_left_out_with_their_edges():
    skeletons = trace(straight(8), numbers(), np.ones((10, 10, 10), np.uint64), VOXEL, STILL)
    assert len(skeletons.ids) == 5
    assert len(skeletons.edges) == 4


def test_an_overgrown_node_moves_to_the_nearest_voxel_of_its_label():
    labels = np.ones((10, 10, 10), np.uint64)
    labels[5, 3:, 4] = 2  # over the node at x 45; y 25 is free
    skeletons = trace(straight(), numbers(), labels, VOXEL, STILL)
    assert len(skeletons.ids) == 5
    voxels = np.floor(skeletons.positions / VOXEL).astype(int)
    assert (labels[tuple(voxels.T)] == 1).all()
    assert np.abs(skeletons.positions[2] - [55, 55, 45]).sum() == 10  # one voxel aside


def test_a_node_without_a_voxel_near_is_left_out_and_bridged():
    labels = np.full((10, 10, 20), 2, np.uint64)
    labels[5, 5, [0, 19]] = 1
    forest = Forest()
    forest.add(np.array([[55.0, 55, 5], [55, 55, 105], [55, 55, 195]]), np.full(3, 15.0), -1, 4)
    skeletons = trace(forest, numbers(), labels, VOXEL, STILL)
    assert list(skeletons.positions[:, 2]) == [5, 195]
    assert np.array_equal(np.sort(skeletons.edges), [[1, 2]])


def test_nodes_move_with_their_section():
    offsets = STILL.copy()
    offsets[5] = [0, 20, 10]
    still, moved = (trace(straight(), numbers(), np.ones((10, 10, 10), np.uint64), VOXEL, o) for o in (STILL, offsets))
    assert np.array_equal(moved.positions - still.positions, np.tile([0, 20, 10], (5, 1)))


def test_neurons_that_are_not_here_leave_no_nodes():
    forest = straight()
    forest.add(np.array([[55.0, 85, 5], [55, 85, 25]]), np.full(2, 15.0), -1, 3)
    skeletons = trace(forest, numbers(), np.ones((10, 10, 10), np.uint64), VOXEL, STILL)
    assert set(skeletons.skeleton) == {1}
    assert len(skeletons.ids) == 5
