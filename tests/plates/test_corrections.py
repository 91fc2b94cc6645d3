"""What changes voxels: by hand, and as scikit-image does it."""

import numpy as np
import pytest
from skimage.exposure import equalize_adapthist
from skimage.transform import resize

from emsuite.plates.corrections import (
    clipped,
    equalized,
    factors_of,
    flattened,
    resized,
    resized_empty,
    resized_mask,
    resized_shape,
)
from emsuite.plates.flat_field import empty_sections


def volume(shape: tuple[int, int, int] = (3, 32, 40)) -> np.ndarray:
    return np.random.default_rng(0).integers(100, 4000, shape).astype(np.uint16)


def test_factors_and_shapes() -> None:
    assert factors_of(None) == (1, 1, 1)
    assert factors_of(0.5) == (1, 0.5, 0.5)
    assert factors_of([2, 0.5, 1]) == (2, 0.5, 1)
    assert resized_shape((3, 31, 40), (1, 0.5, 0.5)) == (3, 16, 20)
    assert resized_shape((3, 31, 40), (0.1, 0.01, 2)) == (1, 1, 80)


@pytest.mark.parametrize("factor", [0.5, 0.7, 1.5])
def test_slices_are_resized_as_scikit_image_does(factor: float) -> None:
    voxels = volume()
    shape = (round(32 * factor), round(40 * factor))
    options = {"order": 1, "mode": "reflect", "anti_aliasing": factor < 1, "preserve_range": True}
    expected = np.stack([resize(section.astype(np.float32), shape, **options) for section in voxels])
    found = resized(voxels, factors_of(factor))
    assert found.dtype == np.float32
    assert np.allclose(found, expected, rtol=1e-6)


def test_volumes_are_resized_as_scikit_image_does() -> None:
    voxels = volume()
    options = {"order": 3, "mode": "reflect", "anti_aliasing": True, "preserve_range": True}
    expected = resize(voxels.astype(np.float32), (6, 16, 20), **options)
    assert np.allclose(resized(voxels, (2, 0.5, 0.5)), expected, rtol=1e-6)


def test_a_plane_stays_a_plane_inside() -> None:
    plane = np.broadcast_to(np.arange(40.0), (2, 32, 40))
    doubled = resized(plane, (1, 2, 2))[0, 10]
    assert np.allclose(doubled[2:-2], ((np.arange(80) + 0.5) / 2 - 0.5)[2:-2], atol=1e-4)


@pytest.mark.parametrize(
    ("factors", "dark"),
    [
        ((1, 0.5, 0.7), [1]),
        ((1, 1, 1), [1]),
        ((2, 1, 1), [2, 3]),
        ((0.5, 0.5, 0.5), [0]),
        ((0.75, 1, 1), [0, 1]),
    ],
)
def test_empty_slices_stay_empty(factors: tuple[float, float, float], dark: list[int]) -> None:
    """A flat field and an interpolation must not make an image of a frame without light."""
    voxels = volume((4, 30, 40))
    voxels[1] = 401
    field = np.random.default_rng(1).uniform(0.5, 1.5, (30, 40))
    after = resized(flattened(voxels, field), factors)
    assert np.flatnonzero(empty_sections(after)).tolist() == dark
    assert np.flatnonzero(resized_empty(empty_sections(voxels), len(after))).tolist() == dark
    assert (after[dark] == 401).all()


def test_factor_1_changes_nothing() -> None:
    assert np.array_equal(resized(volume(), (1, 1, 1)), volume())


def test_masks_by_the_nearest_voxel() -> None:
    mask = np.array([[[1, 0, 0], [0, 1, 0]]], bool)
    assert resized_mask(mask, (1, 4, 6)).astype(int).tolist() == [
        [[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0]]
    ]
    assert np.array_equal(resized_mask(mask, (1, 2, 3)), mask)
    assert resized_mask(mask, (1, 1, 1)).tolist() == [[[True]]]


def test_light_is_divided_out() -> None:
    field = np.random.default_rng(1).uniform(0.5, 1.5, (32, 40))
    assert np.allclose(flattened(volume() * field, field), volume(), rtol=1e-6)


def test_clip_does_not_rescale() -> None:
    assert clipped(np.array([0, 5, 9, 20], np.uint8), 4.5, 9).tolist() == [4.5, 5, 9, 9]


def test_clahe_is_scikit_images() -> None:
    voxels = volume().astype(np.float32)
    voxels[1] = 7
    found = equalized(voxels, 8, 0.02)
    for z in (0, 2):
        unit = (voxels[z] - voxels[z].min()) / (voxels[z].max() - voxels[z].min())
        assert np.allclose(
            found[z], equalize_adapthist(unit.astype(np.float64), kernel_size=8, clip_limit=0.02), atol=1e-3
        )
    assert not found[1].any(), "a frame without light"
    assert found.min() >= 0
    assert found.max() <= 1
