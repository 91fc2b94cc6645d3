"""Organelles: how many there are, and that they lie in neurites that have room."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from emsuite.phantom.forest import Forest
from emsuite.phantom.neurites import grow
from emsuite.phantom.organelles import DENSE_CORED, microtubules, mitochondria, reticulum, vesicles
from emsuite.phantom.tubes import Tubes


@pytest.fixture(scope="module")
def forest() -> Forest:
    return grow(np.full(3, 700.0), 180.0, np.random.default_rng(0))


def outermost(tubes: Tubes, forest: Forest) -> float:
    """How far from the axis of the neurite around it a tube's end lies, in its radii, at worst."""
    positions, radii = np.array(forest.positions), np.array(forest.radii)
    near = cKDTree(positions).query_ball_point(tubes.ends, 1.1 * radii.max())
    ratios = (
        np.linalg.norm(positions[nodes] - end, axis=1) / radii[nodes]
        for nodes, end in zip(near, tubes.ends, strict=True)
    )
    return max(float(ratio.min(initial=np.inf)) for ratio in ratios)


@pytest.mark.parametrize("fraction", [0.05, 0.12])
def test_mitochondria_take_their_fraction(forest: Forest, fraction: float):
    tubes = mitochondria(forest, fraction, np.random.default_rng(1))
    assert 0.9 * fraction < tubes.volume / forest.tubes().volume < 1.6 * fraction
    assert len(np.unique(tubes.values)) == tubes.values.max()


def test_mitochondria_are_longer_than_wide_and_fit_their_neurites(forest: Forest):
    tubes = mitochondria(forest, 0.1, np.random.default_rng(1))
    lengths = np.bincount(tubes.values, np.linalg.norm(tubes.ends - tubes.starts, axis=1))[1:]
    assert np.median(lengths) > 150
    assert outermost(tubes, forest) < 1.05


def test_vesicles_come_in_the_number_wanted(forest: Forest):
    tubes = vesicles(forest, 2000, np.random.default_rng(1))
    assert 2000 <= len(tubes) < 2060
    assert np.array_equal(tubes.starts, tubes.ends)
    dense = tubes.values == DENSE_CORED
    assert 0.02 < dense.mean() < 0.12
    assert tubes.radii[dense].min() > tubes.radii[~dense].max()


def test_vesicles_are_clustered(forest: Forest):
    positions = vesicles(forest, 500, np.random.default_rng(1)).starts
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    spread = np.random.default_rng(0).uniform(positions.min(0), positions.max(0), positions.shape)
    even = np.linalg.norm(spread[:, None] - spread[None], axis=2)
    np.fill_diagonal(even, np.inf)
    assert np.median(distances.min(1)) < 0.6 * np.median(even.min(1))


def test_lines_and_lumens_lie_inside(forest: Forest):
    for tubes in (microtubules(forest, np.random.default_rng(1)), reticulum(forest, np.random.default_rng(2))):
        assert len(tubes) > 20
        assert outermost(tubes, forest) < 1.05


def test_thin_neurites_hold_none_of_them():
    thin = Forest()
    thin.add(np.array([[0.0, 0, 0], [0, 0, 50], [0, 0, 100], [0, 0, 150]]), np.full(4, 30.0), -1, 1)
    rng = np.random.default_rng(0)
    organelles = (mitochondria(thin, 0.2, rng), vesicles(thin, 50, rng), reticulum(thin, rng), microtubules(thin, rng))
    assert [len(tubes) for tubes in organelles] == [0, 0, 0, 0]
