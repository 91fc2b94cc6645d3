"""Known degradations: closed forms, and transfer_em's own operations written with torch."""

from itertools import product

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.stats import kstest

from emsuite.data.derived.degradations import BoxAndHoles, Degradation, SecondLook

SHAPE = (70, 40, 90)


def whole(look: Degradation, grey: np.ndarray, mean: float = 0.0) -> np.ndarray:
    box = tuple(slice(0, n) for n in grey.shape)
    return look.apply(grey, box, box, grey.shape, mean)


def grey_of(shape: tuple = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape) / 127.5 - 1


def blocks(look: Degradation, grey: np.ndarray, block: tuple, mean: float) -> np.ndarray:
    changed = np.empty_like(grey)
    for corner in product(*(range(0, n, b) for n, b in zip(grey.shape, block, strict=True))):
        write = tuple(slice(c, min(c + b, n)) for c, b, n in zip(corner, block, grey.shape, strict=True))
        read = tuple(
            slice(max(0, part.start - m), min(n, part.stop + m))
            for part, m, n in zip(write, look.margin, grey.shape, strict=True)
        )
        changed[write] = look.apply(grey[read], read, write, grey.shape, mean)
    return changed


@pytest.mark.parametrize("per_section", [True, False])
def test_box_and_holes_are_those_of_transfer_em(per_section: bool) -> None:
    """Its convolutions with SAME padding: a box mean with zeros around; ones of even length grow to the front."""
    grey, look = grey_of(), BoxAndHoles(per_section=per_section, hole_rate=0, seed=3)
    depth = 1 if per_section else 3
    image = torch.from_numpy(grey)[None, None]
    box = torch.ones((1, 1, depth, 3, 3), dtype=torch.float64) / (9 * depth)
    blurred = torch.nn.functional.conv3d(image, box, padding="same")[0, 0].numpy()
    assert np.allclose(whole(look, grey), blurred, atol=1e-12)
    length = 1 if per_section else 4
    padding = (1, 2, 1, 2, *((0, 0) if per_section else (1, 2)))
    holes = whole(BoxAndHoles(per_section=per_section, hole_rate=1e-3, seed=3), grey, 9.0) == 9
    seeds = whole(BoxAndHoles(per_section=per_section, hole_rate=1e-3, hole_size=1, seed=3), grey, 9.0) == 9
    padded = torch.nn.functional.pad(torch.from_numpy(seeds.astype(float))[None, None], padding)
    kernel = torch.ones((1, 1, length, 4, 4), dtype=torch.float64)
    assert np.array_equal(holes, torch.nn.functional.conv3d(padded, kernel)[0, 0].numpy() > 0)
    assert seeds.sum() > 100


def test_holes_begin_as_often_as_asked() -> None:
    grey = grey_of((128, 128, 128))
    begun = whole(BoxAndHoles(hole_size=1, seed=1), grey, 9.0) == 9
    assert abs(begun.sum() - 4 * 128) < 4 * np.sqrt(4 * 128)
    holes = whole(BoxAndHoles(seed=1), grey, 9.0) == 9
    assert holes.mean() == pytest.approx(1 - (1 - 4 / 128**2) ** 64, rel=0.1)


def test_weights_give_the_mean_of_the_blurred_volume() -> None:
    for shape in (SHAPE, (1, 2, 3)):
        grey = grey_of(shape)
        for keys in ({}, {"per_section": True}, {"box": 5}):
            look = BoxAndHoles(hole_rate=0, **keys)
            z, y, x = (look.weights(n, axis) for axis, n in enumerate(shape))
            assert np.einsum("zyx,z,y,x", grey, z, y, x) / grey.size == pytest.approx(whole(look, grey).mean())


@pytest.mark.parametrize("look", [BoxAndHoles(hole_rate=0.001), BoxAndHoles(per_section=True), SecondLook()])
def test_blocks_of_any_shape_give_the_same_voxels(look: Degradation) -> None:
    grey = grey_of()
    expected = whole(look, grey, 0.25)
    for block in ((64, 64, 64), (17, 40, 23)):
        assert np.array_equal(blocks(look, grey, block, 0.25), expected)
    assert not np.array_equal(whole(look.model_copy(update={"seed": 1}), grey, 0.25), expected)


def test_the_second_look_without_blur_and_noise_is_a_map_of_grey_values() -> None:
    grey = np.linspace(-1, 1, 27).reshape(3, 3, 3)
    look = SecondLook(blur=(0, 0, 0), noise=0, shot_noise=0, gamma=2, darkest=0.1, brightest=0.6)
    dark_to_bright = (0.1 + 0.5 * ((1 - grey) / 2) ** 2) * 2 - 1
    assert np.allclose(whole(look, grey), dark_to_bright)
    upright = look.model_copy(update={"inverted": False})
    assert np.allclose(whole(upright, grey), dark_to_bright[::-1, ::-1, ::-1])


def test_noise_of_the_second_look_is_normal_and_grows_with_brightness() -> None:
    look = SecondLook(blur=(0, 0, 0), noise=0.02, shot_noise=0.1, inverted=False, gamma=1, darkest=0, brightest=1)
    for brightness, sigma in ((0.0, 0.02), (0.25, np.hypot(0.02, 0.05)), (1.0, np.hypot(0.02, 0.1))):
        flat = np.full((64, 64, 70), brightness * 2 - 1)
        noise = (whole(look, flat) - flat) / 2 / sigma
        assert kstest(noise.ravel()[::7], "norm").pvalue > 1e-3


def test_the_blur_of_the_second_look_keeps_the_mean_and_follows_its_axes() -> None:
    point = np.zeros((41, 41, 41))
    point[20, 20, 20] = 1
    look = SecondLook(blur=(3, 2, 1), noise=0, shot_noise=0, inverted=False, gamma=1, darkest=0, brightest=1)
    spread = whole(look, point)
    assert spread.sum() == pytest.approx(1, abs=1e-6)
    places = np.indices(point.shape) - 20.0
    assert [np.sqrt((spread * place**2).sum()) for place in places] == pytest.approx([3, 2, 1], rel=0.01)


@pytest.mark.parametrize(
    ("kind", "keys", "message"),
    [
        (BoxAndHoles, {"box": 4}, "expected an odd number"),
        (BoxAndHoles, {"hole_rate": 2}, "less than or equal to 1"),
        (SecondLook, {"darkest": 0.8}, "expected the lower value first"),
        (SecondLook, {"blur": [1, 1]}, "Field required"),
    ],
)
def test_settings_of_no_degradation_are_refused(kind: type[Degradation], keys: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        kind(**keys)
