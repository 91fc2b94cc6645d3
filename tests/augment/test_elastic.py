"""Elastic deformation: closed form, against SciPy's zoom, and by its statistics."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.ndimage import zoom
from scipy.stats import chi2_contingency, chisquare, ks_2samp

from emsuite.augment.elastic import Elastic, _jitter, _misalignment
from emsuite.augment.resample import read_linear, read_nearest
from emsuite.augment.warp import Warp, WarpStep
from emsuite.common.geometry import Roi

PEERS = Path(__file__).resolve().parents[1] / "fixtures" / "peers_elastic.npz"
SHAPE = (12, 32, 32)
BOX = Roi((0, 0, 0), SHAPE)
CENTRE = (np.array(SHAPE) - 1) / 2


def elastic(**settings) -> Elastic:
    return Elastic(**({"name": "elastic", "control_point_spacing": (4, 8, 8), "jitter_sigma": (0, 0, 0)} | settings))


def moments(fields: np.ndarray) -> dict[str, np.ndarray]:
    """As tests/fixtures/make_peers_elastic.py: over draws and voxels, and how alike voxels at a distance are."""
    deviation, along_y = fields.std(axis=(0, 2, 3, 4)), fields[:, 2] / fields[:, 2].std()
    pairs = [
        [(np.take(along_y, range(along_y.shape[axis] - lag), axis)
          * np.take(along_y, range(lag, along_y.shape[axis]), axis)).mean() for lag in (1, 2, 4, 8, 16)]
        for axis in (1, 2, 3)
    ]  # fmt: skip
    quantiles = np.quantile(fields[:, 2], (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999))
    return {"mean": fields.mean(axis=(0, 2, 3, 4)), "std": deviation, "quantiles": quantiles, "alike": np.array(pairs)}


def moved(settings: Elastic, seed: int, box: Roi) -> np.ndarray:
    """Where each voxel is taken from, less where it lies: (3, *box)."""
    warp = Warp().with_upstream(draw(settings, seed, box))
    if warp.resampling is None:
        return np.zeros((3, *box.shape))
    coordinates = warp.sampling_grid(box, (0, 0, 0), torch.device("cpu")).dense().numpy()
    return coordinates - np.stack(np.meshgrid(*map(np.arange, box.shape), indexing="ij"))


def draw(settings: Elastic, seed: int = 0, box: Roi = BOX):
    centre = np.array(box.begin) + (np.array(box.shape) - 1) / 2
    return settings.draw(box, centre, np.random.default_rng(seed))


def test_nothing_asked_for_is_an_exact_copy():
    step = draw(elastic())
    assert step.only_permutes_axes
    raw = torch.randint(0, 256, SHAPE, dtype=torch.uint8)
    assert torch.equal(read_linear(raw, Warp().with_upstream(step), BOX, (0, 0, 0)), raw.float())


@pytest.mark.parametrize(("angle", "turns"), [(math.pi / 2, 1), (math.pi, 2), (-math.pi / 2, -1)])
def test_a_quarter_turn_is_rot90(angle, turns):
    warp = Warp().with_upstream(draw(elastic(rotation=(angle, angle))))
    raw = torch.randint(0, 256, SHAPE, dtype=torch.uint8)
    labels = torch.randint(0, 1000, SHAPE, dtype=torch.int32)
    inside = (slice(None), slice(1, -1), slice(1, -1))
    expected = torch.rot90(raw, turns, (1, 2)).float()
    torch.testing.assert_close(read_linear(raw, warp, BOX, (0, 0, 0))[inside], expected[inside], atol=0.01, rtol=0)
    (turned,) = read_nearest([labels], warp, BOX, (0, 0, 0))
    assert torch.equal(turned, torch.rot90(labels, turns, (1, 2)))


def test_rotation_is_uniform_in_its_range():
    angles = [math.acos(draw(elastic(rotation=(0.5, 1.0)), seed).matrix[1, 1]) for seed in range(400)]
    assert min(angles) >= 0.5
    assert max(angles) <= 1
    assert chisquare(np.histogram(angles, 8, (0.5, 1))[0]).pvalue > 1e-3


@pytest.mark.parametrize("subsample", [1, 4])
def test_displacement_is_the_control_points_zoomed(subsample):
    step = draw(elastic(jitter_sigma=(1, 2, 3), subsample=subsample))
    points = step.displacement.vectors
    assert points.shape == (3, 3, 4, 4)
    coordinates = Warp().with_upstream(step).sampling_grid(BOX, (0, 0, 0), torch.device("cpu")).dense()
    coarse = np.array(SHAPE) // subsample
    for axis, grid in enumerate(np.meshgrid(*map(np.arange, SHAPE), indexing="ij")):
        expected = zoom(points[axis], coarse / points.shape[1:], order=3)
        expected = zoom(expected, np.array(SHAPE) / coarse, order=1)
        np.testing.assert_allclose(coordinates[axis].numpy() - grid, expected, atol=1e-4)


def test_jitter_has_the_sigma_asked_for_and_leaves_other_axes_straight():
    box = Roi((0, 0, 0), (80, 200, 200))
    vectors = draw(elastic(jitter_sigma=(0, 2, 5), control_point_spacing=(4, 4, 10)), box=box).displacement.vectors
    assert vectors.shape == (3, 20, 50, 20)
    assert not vectors[0].any()
    assert vectors[1].std() == pytest.approx(2, rel=0.03)
    assert vectors[2].std() == pytest.approx(5, rel=0.03)
    assert np.abs(vectors.mean(axis=(1, 2, 3))).max() < 0.15


class Fixed:
    """Draws that are fixed beforehand."""

    def __init__(self, kinds, offsets):
        self.kinds, self.offsets = np.array(kinds), np.array(offsets)

    def uniform(self, low, high):
        return low

    def random(self, size):
        return self.kinds

    def integers(self, low, high, size, endpoint):
        assert (low, high, endpoint) == (-9, 9, True)
        return self.offsets


def test_a_slip_moves_its_section_alone_and_a_shift_all_that_follow():
    slip, shift, still = 0.1, 0.3, 0.9
    kinds = [still, slip, still, shift, still, slip, shift, still]
    offsets = [[5, n, -n] for n in range(1, 9)]
    box = Roi((3, 0, 0), (8, 4, 4))
    step = elastic(slip=0.2, shift=0.2, max_misalign=9).draw(box, np.zeros(3), Fixed(kinds, offsets))
    moved = [0, 2, 0, 4, 4, 6, 11, 11]
    assert step.section_shifts.vectors.tolist() == [[0, n, -n] for n in moved]
    assert step.section_shifts.first_section == 3
    coordinates = Warp().with_upstream(step).sampling_grid(box, (0, 0, 0), torch.device("cpu")).dense()
    assert coordinates[1, :, 0, 0].tolist() == moved
    assert coordinates[0, :, 0, 0].tolist() == list(range(3, 11))


def test_rates_and_range_of_misalignment():
    settings = elastic(slip=0.05, max_misalign=10)
    box = Roi((0, 0, 0), (400, 4, 4))
    slipped = np.concatenate([draw(settings, seed, box).section_shifts.vectors for seed in range(50)])
    moved = slipped.any(axis=1)
    assert moved.mean() == pytest.approx(0.05 * (1 - 1 / 21**2), abs=0.006)
    for axis in (1, 2):
        counts = np.bincount(slipped[moved, axis].astype(int) + 10, minlength=21)
        assert len(counts) == 21
        assert chisquare(counts).pvalue > 1e-3
    settings = elastic(shift=0.05, max_misalign=3)
    steps = [np.diff(draw(settings, seed, box).section_shifts.vectors, axis=0) for seed in range(50)]
    shifted = np.concatenate(steps)
    assert shifted.any(axis=1).mean() == pytest.approx(0.05 * (1 - 1 / 49), abs=0.006)
    assert np.abs(shifted).max() == 3
    assert not shifted[:, 0].any()


def test_a_rotation_is_gunpowders():
    with np.load(PEERS) as peers:
        expected = peers["rotation"]
    box = Roi((0, 0, 0), expected.shape[1:])
    np.testing.assert_allclose(moved(elastic(rotation=(0.5, 0.5)), 0, box), expected, atol=1e-4)


class Recorded:
    """Gives one array after the other, whatever is asked for."""

    def __init__(self, *arrays):
        self.arrays = list(arrays)

    def __getattr__(self, name):
        return lambda *_, **__: self.arrays.pop(0)


def test_a_field_at_4_40_40_is_gunpowders_for_the_same_control_points():
    with np.load(PEERS) as peers:
        expected, points = peers["jitter"], peers["jitter_points"]
    settings = elastic(control_point_spacing=(4, 40, 40), jitter_sigma=(0, 2, 2))
    box = Roi((0, 0, 0), (12, 120, 100))
    jitter = _jitter(settings, box, Recorded(*(points / 2)))
    step = WarpStep(np.eye(3), np.zeros(3), jitter)
    coordinates = Warp().with_upstream(step).sampling_grid(box, (0, 0, 0), torch.device("cpu")).dense().numpy()
    found = coordinates - np.stack(np.meshgrid(*map(np.arange, box.shape), indexing="ij"))
    assert np.abs(expected[1:]).max() > 3
    np.testing.assert_allclose(found[:, :, ::5, ::5], expected, atol=2e-4)


def test_sections_move_as_gunpowders_for_the_same_draws():
    """The tutorial's settings: slips and shifts of 5 % each, up to 25 voxels."""
    settings = elastic(slip=0.05, shift=0.05, max_misalign=25)
    with np.load(PEERS) as peers:
        numbers, offsets, expected = (peers[f"misaligned{what}"] for what in ("_numbers", "_offsets", ""))
    assert np.abs(expected).max() > 25, "shifts add up"
    for drawn, offset, moved_by in zip(numbers, offsets, expected, strict=True):
        found = _misalignment(settings, len(drawn), Recorded(drawn, offset.astype(int)))
        assert np.array_equal(found, moved_by.T)


@pytest.mark.parametrize("name", ["zebrafinch", "fib25", "fine", "cremi"])
def test_jitter_is_distributed_as_gunpowders(name):
    """Size, tails and smoothness of the field; tolerances are a few of what is left to chance."""
    spacing, sigma, subsample = {"zebrafinch": ((4, 4, 10), (0, 2, 2), 8), "fib25": ((40, 40, 40), (2, 2, 2), 8),
                                 "fine": ((8, 8, 8), (1, 2, 3), 1),
                                 "cremi": ((4, 40, 40), (0, 2, 2), 1)}[name]  # fmt: skip
    with np.load(PEERS) as peers:
        expected = {what: peers[f"{name}_{what}"] for what in ("mean", "std", "quantiles", "alike")}
    settings = elastic(control_point_spacing=spacing, jitter_sigma=sigma, subsample=subsample)
    draws, chance = {"fib25": (40, 0.15), "cremi": (40, 0.05)}.get(
        name, (20, 0.02)
    )  # points far apart: few of them in a draw
    box = Roi((0, 0, 0), (40, 80, 80))
    fields = np.stack([moved(settings, seed, box) for seed in range(draws)])
    drawn = moments(fields)
    deviation = np.maximum(expected["std"], 1e-3)
    assert np.abs((drawn["mean"] - expected["mean"]) / deviation).max() < 2 * chance
    np.testing.assert_allclose(drawn["std"], expected["std"], rtol=1.5 * chance, atol=1e-6)
    np.testing.assert_allclose(drawn["quantiles"], expected["quantiles"], rtol=2 * chance, atol=4 * chance)
    np.testing.assert_allclose(drawn["alike"], expected["alike"], atol=3 * chance)


def test_sections_slip_and_shift_as_often_and_as_far_as_gunpowders():
    with np.load(PEERS) as peers:
        expected = peers["sections"]
    settings, box = elastic(slip=0.05, shift=0.05, max_misalign=10), Roi((0, 0, 0), (200, 2, 2))
    drawn = np.stack([moved(settings, seed, box)[:, :, 0, 0] for seed in range(200)]).round().astype(int)
    for sections in (drawn, expected):
        assert not sections[:, 0].any()
        # a shift makes one jump, a slip two
        assert np.diff(sections, axis=2).any(axis=1).mean() == pytest.approx(0.05 + 2 * 0.05, abs=0.012)
    jumps = [np.histogram(np.abs(np.diff(s[:, 1:], axis=2)).ravel(), [1, 3, 6, 11, 200])[0] for s in (drawn, expected)]
    assert chi2_contingency(jumps).pvalue > 1e-3
    ends = [np.abs(s[:, 1:, -1]).ravel() for s in (drawn, expected)]  # a random walk of shifts
    assert ks_2samp(*ends).pvalue > 1e-3


@pytest.mark.parametrize(
    "wrong",
    [{"slip": 0.6, "shift": 0.6}, {"rotation": (1, 0)}, {"jitter_sigma": (0, -1, 0)}, {"max_misalign": -1},
     {"control_point_spacing": (0, 1, 1)}, {"subsample": 0}, {"slip": float("nan")}, {"prob_slip": 0.1}],
)  # fmt: skip
def test_settings_without_a_meaning_are_refused(wrong):
    with pytest.raises(ValidationError):
        elastic(**wrong)
