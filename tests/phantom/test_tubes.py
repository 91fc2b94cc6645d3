"""Tubes: closed-form distances, and the competition against brute force."""

import numpy as np

from emsuite.phantom.tubes import TubeField, Tubes

SPACING = np.array([8.0, 4.0, 5.0])
SHAPE = (12, 14, 16)


def one_tube(start, end, radii=(10.0, 10.0), value=3) -> Tubes:
    return Tubes(np.array([start], float), np.array([end], float), np.array([radii]), np.array([value], np.int32))


def field(farthest: float = 1e3) -> TubeField:
    return TubeField.empty(SHAPE, SPACING / 2, SPACING, farthest)


def centres() -> np.ndarray:
    return np.stack(np.meshgrid(*((np.arange(n) + 0.5) * s for n, s in zip(SHAPE, SPACING, strict=True)),
                                indexing="ij"), -1)  # fmt: skip


def test_a_tube_along_x_is_a_cylinder_with_round_ends():
    filled = field()
    filled.add(one_tube((40, 30, 20), (40, 30, 60)), 1e3)
    z, y, x = np.moveaxis(centres(), -1, 0)
    beyond = np.maximum(0, np.maximum(20 - x, x - 60))
    np.testing.assert_allclose(filled.phi, np.sqrt((z - 40) ** 2 + (y - 30) ** 2 + beyond**2) - 10, atol=1e-4)
    assert (filled.owner == 3).all()


def test_a_tapering_tube_changes_its_radius_along_its_axis():
    filled = field()
    filled.add(one_tube((44, 30, 2.5), (44, 30, 77.5), radii=(5.0, 20.0)), 1e3)
    on_axis = filled.phi[5, 7, :]  # the voxels at z 44, y 30
    np.testing.assert_allclose(on_axis, -np.linspace(5, 20, 16), atol=1e-4)


def test_a_ball_is_a_tube_without_length():
    filled = field()
    filled.add(one_tube((40, 30, 40), (40, 30, 40)), 1e3)
    np.testing.assert_allclose(filled.phi, np.linalg.norm(centres() - (40, 30, 40), axis=-1) - 10, atol=1e-4)


def test_nothing_is_claimed_beyond_the_reach():
    filled = field(farthest=7)
    filled.add(one_tube((40, 30, 40), (40, 30, 40)), 7)
    far = np.linalg.norm(centres() - (40, 30, 40), axis=-1) > 17
    assert far.any()
    assert (filled.phi[far] == 7).all()
    assert (filled.owner[far] == 0).all()
    assert (filled.owner[~far] == 3).all()


def random_tubes(count: int, rng: np.random.Generator) -> Tubes:
    ends = rng.uniform(-10, 100, (2, count, 3))
    return Tubes(*ends, rng.uniform(2, 20, (count, 2)), np.arange(1, count + 1, dtype=np.int32))


def test_the_competition_equals_brute_force():
    tubes = random_tubes(30, np.random.default_rng(0))
    filled = field()
    filled.add(tubes, 1e3)
    axes = tubes.ends - tubes.starts
    offsets = centres()[..., None, :] - tubes.starts
    t = np.clip((offsets * axes).sum(-1) / (axes**2).sum(-1), 0, 1)
    distances = np.linalg.norm(offsets - t[..., None] * axes, axis=-1)
    phi = distances - tubes.radii[:, 0] - t * (tubes.radii[:, 1] - tubes.radii[:, 0])
    np.testing.assert_allclose(filled.phi, phi.min(-1), atol=1e-3)
    assert (filled.owner == tubes.values[phi.argmin(-1)]).mean() > 0.999


def test_adding_tubes_one_by_one_gives_the_same_field():
    tubes = random_tubes(10, np.random.default_rng(1))
    together, apart = field(), field()
    together.add(tubes, 50)
    for i in range(len(tubes)):
        only = slice(i, i + 1)
        apart.add(Tubes(tubes.starts[only], tubes.ends[only], tubes.radii[only], tubes.values[only]), 50)
    assert np.array_equal(together.phi, apart.phi)
    assert np.array_equal(together.owner, apart.owner)


def test_roughness_bends_the_surface_by_no_more_than_it_says():
    rng = np.random.default_rng(2)
    tubes, noise = random_tubes(5, rng), rng.uniform(-1, 1, (7, 8, 9)).astype(np.float32)
    smooth, rough = field(), field()
    smooth.add(tubes, 1e3)
    rough.add(tubes, 1e3, np.full(5, 6.0), noise)
    assert 3 < np.abs(rough.phi - smooth.phi).max() <= 6.001


def test_the_volume_of_a_tube_is_that_of_a_cylinder():
    assert np.isclose(one_tube((0, 0, 0), (0, 0, 50)).volume, np.pi * 10**2 * 50)
