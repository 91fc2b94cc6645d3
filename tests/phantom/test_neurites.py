"""Growth: neurites of all widths that fill the box, keep apart, branch, and leave it."""

from collections import Counter

import numpy as np
import pytest

from emsuite.phantom.forest import Forest
from emsuite.phantom.neurites import THINNEST, grow
from emsuite.phantom.tubes import TubeField, Tubes

EXTENT = np.array([500.0, 600.0, 700.0])


@pytest.fixture(scope="module")
def forest() -> Forest:
    return grow(EXTENT, 160.0, np.random.default_rng(3))


def inside(forest: Forest) -> np.ndarray:
    positions = np.array(forest.positions)
    return ((positions > 0) & (positions < EXTENT)).all(axis=1)


def test_the_same_generator_grows_the_same_forest(forest: Forest):
    again, other = (grow(EXTENT, 160.0, np.random.default_rng(seed)) for seed in (3, 4))
    assert np.array_equal(forest.positions, again.positions)
    assert forest.radii == again.radii
    assert len(other) != len(forest)


def test_thin_and_thick_neurites_are_there(forest: Forest):
    radii = np.array(forest.radii)[inside(forest)]
    assert radii.min() >= THINNEST
    assert (radii < 30).any()
    assert radii.max() > 100


def test_they_fill_the_box(forest: Forest):
    field = TubeField.empty((32, 38, 44), np.full(3, 8.0), np.full(3, 16.0), 1e3)
    field.add(forest.tubes(), 100)
    assert (field.phi < 0).mean() > 0.6
    assert field.phi.max() < 80


def test_they_branch(forest: Forest):
    children = Counter(parent for parent in forest.parents if parent >= 0)
    # neurites that became a neighbour's branch make some, too: 66 here
    assert sum(count >= 2 for count in children.values()) > 120


def test_they_leave_the_box(forest: Forest):
    positions, neurons = np.array(forest.positions), np.array(forest.neurons)
    outside = ~((positions > 0) & (positions < EXTENT)).all(axis=1)
    assert set(neurons[outside]) == set(neurons)


def test_neurons_keep_apart(forest: Forest):
    """At a node, no other neuron's tube reaches deeper than the grid of free space blurs."""
    tubes, nodes = forest.tubes(), np.flatnonzero(inside(forest))[::7]
    depths = []
    for node in nodes:
        others = tubes.values != forest.neurons[node]
        at = TubeField.empty((1, 1, 1), forest.positions[node], np.ones(3), 1e3)
        at.add(Tubes(tubes.starts[others], tubes.ends[others], tubes.radii[others], tubes.values[others]), 1e3)
        depths.append(at.phi.item())
    assert np.mean(np.array(depths) > 0) > 0.98
    assert np.median(depths) > THINNEST - 5


def test_parents_come_before_their_children_and_belong_to_the_same_neuron(forest: Forest):
    for node, parent in enumerate(forest.parents):
        assert parent < node
        assert parent < 0 or forest.neurons[parent] == forest.neurons[node]


def test_a_small_box_holds_neurites_too():
    small = grow(np.full(3, 64.0), 300.0, np.random.default_rng(0))
    assert max(small.neurons) > 5
    assert max(small.radii) < 0.4 * (64 + 2 * 160)
