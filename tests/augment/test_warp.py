"""Composed maps against the steps one by one."""

from itertools import permutations, product

import numpy as np
import pytest
import torch

from emsuite.augment.resample import read_linear, read_nearest
from emsuite.augment.warp import AxisPermutation, ControlPointField, SectionShifts, Warp, WarpStep
from emsuite.common.geometry import Roi

CPU = torch.device("cpu")
BOX = Roi((-2, -3, 1), (4, 5, 6))


def coordinates(warp: Warp, box: Roi = BOX) -> np.ndarray:
    return warp.sampling_grid(box, (0, 0, 0), CPU).dense().numpy()


def jitter(box: Roi = BOX, seed: int = 0) -> WarpStep:
    random = np.random.default_rng(seed)
    weights = tuple(random.uniform(size=(size, 3)).astype(np.float32) for size in box.shape)
    vectors = random.normal(size=(3, 3, 3, 3)).astype(np.float32)
    shifts = random.integers(-3, 4, (box.shape[0], 3)).astype(np.float32)
    return WarpStep(
        np.eye(3), np.zeros(3), ControlPointField(vectors, weights, box), SectionShifts(shifts, box.begin[0])
    )


def rotation(angle: float) -> WarpStep:
    matrix = np.eye(3)
    matrix[1:, 1:] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    return WarpStep(matrix, np.array([0.5, -1.0, 2.0]))


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("signs", list(product((1, -1), repeat=3)))
def test_a_permutation_permutes_voxels_as_its_matrix_says(order, signs):
    matrix = np.eye(3)[list(order)] * np.array(signs)[:, None]
    permutation = AxisPermutation(matrix, np.array([5.0, -2.0, 7.0]))
    image = permutation.image(BOX)
    index = np.stack(np.meshgrid(*map(np.arange, image.begin, image.end), indexing="ij"), axis=-1)
    values = np.stack([permutation.apply(torch.from_numpy(index[..., axis])).numpy() for axis in range(3)], axis=-1)
    voxels = np.stack(np.meshgrid(*map(np.arange, BOX.begin, BOX.end), indexing="ij"), axis=-1)
    np.testing.assert_array_equal(values, voxels @ matrix.T + permutation.offset)


def test_affine_steps_upstream_of_a_jitter_equal_the_steps_one_by_one():
    swap = WarpStep(np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]]), np.array([3.0, 0, -1]))
    by_jitter = coordinates(Warp().with_upstream(jitter()))
    moved = np.einsum("ij,jzyx->izyx", swap.matrix, by_jitter) + swap.offset[:, None, None, None]
    turned = rotation(0.7)
    expected = np.einsum("ij,jzyx->izyx", turned.matrix, moved) + turned.offset[:, None, None, None]
    np.testing.assert_allclose(
        coordinates(Warp().with_upstream(jitter()).with_upstream(swap).with_upstream(turned)), expected, atol=1e-5
    )


def test_a_permutation_downstream_permutes_the_values_of_the_resampling():
    mirror = WarpStep(np.diag([1.0, -1, 1])[[0, 2, 1]], np.array([0.0, 4, -6]))
    warp = Warp().with_upstream(mirror)
    step = jitter(warp.permutation.image(BOX))
    source = torch.rand(40, 40, 40)
    whole = read_linear(source, warp.with_upstream(step), BOX, (20, 20, 20))
    unpermuted = read_linear(source, Warp().with_upstream(step), warp.permutation.image(BOX), (20, 20, 20))
    torch.testing.assert_close(whole, unpermuted.permute(0, 2, 1).flip(1))


def test_a_displacement_upstream_of_another_step_is_refused():
    with pytest.raises(ValueError, match="upstream"):
        Warp().with_upstream(rotation(0.3)).with_upstream(jitter())


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("signs", list(product((1, -1), repeat=3)))
def test_a_permutation_downstream_permutes_the_coordinates_of_the_resampling(order, signs):
    warp = Warp().with_upstream(WarpStep(np.eye(3)[list(order)] * np.array(signs)[:, None], np.array([5.0, -2, 7])))
    image = warp.permutation.image(BOX)
    step = jitter(image)
    unpermuted = warp.permutation.apply(Warp().with_upstream(step).sampling_grid(image, (1, 2, 3), CPU).dense()[0])
    np.testing.assert_allclose(
        warp.with_upstream(step).sampling_grid(BOX, (1, 2, 3), CPU).dense()[0], unpermuted, atol=1e-5
    )


def test_a_part_of_the_box_has_the_coordinates_it_has_in_the_whole():
    warp = Warp().with_upstream(jitter())
    whole = coordinates(warp)
    part = coordinates(warp, Roi((-1, -1, 2), (2, 2, 4)))
    np.testing.assert_allclose(part, whole[:, 1:3, 2:4, 1:5], atol=1e-6)


def test_outside_of_the_volume_all_is_0():
    source = torch.arange(1, 28, dtype=torch.uint8).view(3, 3, 3)
    padded = np.pad(source.numpy(), 4)
    for begin in product((-4, -1, 0, 2, 3), repeat=3):
        expected = padded[tuple(slice(b + 4, b + 8) for b in begin)]
        (values,) = read_nearest([source], Warp(), Roi((0, 0, 0), expected.shape), begin)
        assert np.array_equal(values, expected), begin


def test_reading_without_a_map_is_a_crop_and_leaves_the_source_alone():
    source = torch.arange(64, dtype=torch.uint8).view(4, 4, 4)
    kept = source.clone()
    read = read_linear(source, Warp(), Roi((1, 0, 0), (2, 2, 2)), (0, 1, 2))
    (labels,) = read_nearest([source], Warp(), Roi((1, 0, 0), (2, 2, 2)), (0, 1, 2))
    assert torch.equal(read, source[1:3, 1:3, 2:4].float())
    assert torch.equal(labels, source[1:3, 1:3, 2:4])
    read.zero_(), labels.zero_()
    assert torch.equal(source, kept)
