"""Filling: dense labels, no islands."""

import cc3d
import numpy as np

from emsuite.phantom.forest import Forest
from emsuite.phantom.labels import absorb_islands, fill
from emsuite.phantom.neurites import grow


def test_two_parallel_neurites_share_the_space_between_them():
    forest = Forest()
    for neuron, y in ((1, 100.0), (2, 300.0)):
        forest.add(np.array([[80.0, y, -50], [80.0, y, 450]]), np.array([60.0, 60]), -1, neuron)
    labels = fill(forest, (20, 50, 50), np.full(3, 8.0), np.random.default_rng(0))
    assert set(np.unique(labels)) == {1, 2}
    assert (labels[:, :21] == 1).all()  # up to 168 nm, 24 nm of bend before the middle
    assert (labels[:, 29:] == 2).all()
    assert len(np.unique((labels == 1).sum(axis=1))) > 1, "the border is not bent"


def test_no_voxel_is_left_and_no_neuron_is_a_crumb_within():
    spacing = np.full(3, 8.0)
    # this seed makes a crumb, few do
    forest = grow(np.full(3, 600.0), 120.0, np.random.default_rng(1))
    labels = fill(forest, (75, 75, 75), spacing, np.random.default_rng(2))
    assert labels.min() > 0
    pieces = cc3d.connected_components(labels, connectivity=6)
    at_face = {int(n) for axis in range(3) for end in (0, -1) for n in np.unique(np.take(pieces, end, axis))}
    nodes = np.floor(np.array(forest.positions) / spacing).astype(int)
    nodes = nodes[((nodes >= 0) & (nodes < 75)).all(axis=1)]
    with_nodes = set(pieces[tuple(nodes.T)].tolist())
    assert set(range(1, int(pieces.max()) + 1)) <= at_face | with_nodes


def test_far_corners_are_filled_too():
    forest = Forest()
    forest.add(np.zeros((1, 3)), np.array([20.0]), -1, 5)
    labels = fill(forest, (40, 40, 40), np.full(3, 10.0), np.random.default_rng(0))
    assert (labels == 5).all()


def test_an_island_goes_to_its_main_neighbour():
    labels = np.ones((9, 9, 9), dtype=np.int32)
    labels[:, :, 5:] = 2
    labels[4, 4, 2:4] = 2  # an island of 2 in 1
    labels[4, 4, 5] = 1  # of 1 in 2, with one face on 1's side
    absorb_islands(labels, np.array([[1, 1, 1, 1], [1, 1, 8, 2]]))
    assert (labels[4, 4, :4] == 1).all()
    assert set(np.unique(labels[:, :, 6:])) == {2}


def test_a_piece_that_holds_its_node_or_leaves_through_a_face_stays():
    labels = np.ones((9, 9, 9), dtype=np.int32)
    labels[4, 4, 4] = 2
    labels[0, 0, 0] = 3
    absorb_islands(labels, np.array([[1, 1, 1, 1], [4, 4, 4, 2]]))
    assert labels[4, 4, 4] == 2
    assert labels[0, 0, 0] == 3


def test_another_neurons_node_does_not_hold_a_piece():
    labels = np.ones((9, 9, 9), dtype=np.int32)
    labels[4, 4, 4] = 2
    absorb_islands(labels, np.array([[1, 1, 1, 1], [4, 4, 4, 1]]))
    assert (labels == 1).all()
