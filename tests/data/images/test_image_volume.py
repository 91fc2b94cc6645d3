"""Samples of a plate: what they hold is what the volume holds there, warped alike, and never beyond the image."""

from typing import Any

import numpy as np
import pytest
import torch

from emsuite.augment.elastic import Elastic
from emsuite.augment.intensity import Intensity
from emsuite.augment.mirror import MirrorTranspose
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate
from emsuite.data.images.image_volume import ImageVolume
from emsuite.data.sampler import Sampler
from emsuite.plates.statistics import GreyScale
from emsuite.targets.images import INSIDE, ImageName

SHAPE = (6, 40, 44)
NAME = ImageName("nuclei").array


def volume(run: slice = slice(0, 6), mask: torch.Tensor | None = None, **more: Any) -> ImageVolume:
    """Two input channels and an image, in which each voxel holds its own number."""
    numbers = torch.arange(np.prod(SHAPE)).reshape(SHAPE).float()
    mask = torch.ones(SHAPE, dtype=torch.uint8) if mask is None else mask
    size, zero = Coordinate(1, 1, 1), Coordinate(0, 0, 0)
    keys: dict[str, Any] = {
        "further": (1 - numbers / numbers.max(),),
        "images": {NAME: numbers[run]},
        "units": (GreyScale(0.0, 10.0), GreyScale(5.0, 20.0)),
        "scales": (GreyScale(2.0, 4.0), GreyScale(1.0, 5.0)),
    }
    return ImageVolume(
        numbers / numbers.max(), None, mask[run], size, zero, Coordinate(run.start, 0, 0), "p/A/1/0", **keys | more
    )


def sampler(volumes: list[ImageVolume], steps=(), shape=(1, 16, 16), output=None) -> Sampler:
    return Sampler(volumes, shape, output or shape, augmentations=steps)


def test_input_and_image_are_of_the_same_place() -> None:
    sample = sampler([volume()]).draw(3)
    most = np.prod(SHAPE) - 1
    np.testing.assert_allclose(sample["raw"][0] * most, sample[NAME], atol=0.02)
    np.testing.assert_allclose(1 - sample["raw"][1], sample["raw"][0], atol=1e-6)
    assert sample["raw"].shape == (2, 1, 16, 16)
    assert sample[INSIDE].all()
    assert "labels" not in sample.arrays


@pytest.mark.parametrize("seed", range(6))
def test_turned_samples_are_turned_alike(seed: int) -> None:
    sample = sampler([volume()], [MirrorTranspose(name="mirror_transpose", mirror=(1, 2), transpose=(1, 2))]).draw(seed)
    np.testing.assert_allclose(sample["raw"][0] * (np.prod(SHAPE) - 1), sample[NAME], atol=0.02)


def test_gain_and_shift_normalize_grey_values() -> None:
    sample = sampler([volume()]).draw(0)
    normalized = sample["raw"] * sample["gain"] + sample["shift"]
    grey = sample["raw"] * torch.tensor([10.0, 20])[:, None, None, None] + torch.tensor([0.0, 5])[:, None, None, None]
    expected = (grey - torch.tensor([2.0, 1])[:, None, None, None]) / torch.tensor([4.0, 5])[:, None, None, None]
    torch.testing.assert_close(normalized, expected)


def test_samples_that_measure_themselves_have_mean_0_and_deviation_1() -> None:
    own = volume(scales=None, measured_images=frozenset([NAME]))
    sample = sampler([own]).draw(0)
    normalized = sample["raw"] * sample["gain"] + sample["shift"]
    for values in (*normalized, sample[NAME]):
        assert abs(float(values.mean())) < 1e-4
        assert abs(float(values.std(correction=0)) - 1) < 1e-4


@pytest.mark.parametrize("run", [slice(2, 3), slice(2, 4)])
def test_a_stack_to_a_slice_predicts_slices_of_its_run_with_others_around(run: slice) -> None:
    of = sampler([volume(run)], shape=(5, 16, 16), output=(1, 16, 16))
    for number in range(8):
        sample = of.draw(number)
        z = int(sample[NAME][0, 0, 0]) // (SHAPE[1] * SHAPE[2])
        assert run.start <= z < run.stop
        np.testing.assert_allclose(sample["raw"][0, 2] * (np.prod(SHAPE) - 1), sample[NAME][0], atol=0.02)
        assert sample["raw"].shape[1] == 5


def test_slices_at_the_ends_drop_out_of_stacks() -> None:
    of, found = sampler([volume()], shape=(5, 16, 16), output=(1, 16, 16)), set()
    for number in range(40):
        found.add(int(of.draw(number)[NAME][0, 0, 0]) // (SHAPE[1] * SHAPE[2]))
    assert found == {2, 3}


def test_samples_hold_the_least_foreground() -> None:
    mask = torch.zeros(SHAPE, dtype=torch.uint8)
    mask[:, :20, :20] = 1
    of = sampler([volume(mask=mask, min_fraction=0.5)])
    assert all(float(of.draw(n)["mask"].float().mean()) >= 0.5 for n in range(30))


def test_volumes_without_room_are_never_drawn_and_all_without_are_refused() -> None:
    without = volume(mask=torch.zeros(SHAPE, dtype=torch.uint8), min_fraction=0.1)
    of = sampler([without, volume(min_fraction=0.1)])
    assert {of.draw(n).volumes for n in range(20)} == {(1,)}
    with pytest.raises(BadInput, match="none of 1 stacks of images has room for a sample with 10% of foreground"):
        sampler([without])


def test_larger_volumes_are_drawn_more_often() -> None:
    of = sampler([volume(slice(0, 1)), volume(slice(0, 5))])
    numbers = [of.draw(n).volumes[0] for n in range(300)]
    assert 0.1 < numbers.count(0) / 300 < 0.24  # 1 of 6


def test_rotated_samples_read_no_farther_than_the_image() -> None:
    steps = [Elastic(name="elastic", control_point_spacing=(4, 8, 8), jitter_sigma=(0, 0, 0), rotation=(0.3, 0.9))]
    of = sampler([volume()], steps)
    assert all(of.draw(n)[INSIDE].all() for n in range(10))


def test_values_of_each_input_channel_change_by_a_draw_of_its_own() -> None:
    steps = [Intensity(name="intensity", scale=(0.5, 0.9), shift=(0, 0), per_section=False)]
    plain, changed = (sampler([volume()], kind).draw(1) for kind in ((), steps))
    slopes = [float(b.std() / a.std()) for a, b in zip(plain["raw"], changed["raw"], strict=True)]
    assert all(0.49 < slope < 0.91 for slope in slopes)
    assert abs(slopes[0] - slopes[1]) > 1e-3
    torch.testing.assert_close(plain[NAME], changed[NAME])


def test_the_same_seed_gives_the_same_sample() -> None:
    steps = [MirrorTranspose(name="mirror_transpose", mirror=(1, 2), transpose=(1, 2))]
    first, second = (sampler([volume()], steps).batch(4, 3) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first.arrays)
    assert first["raw"].shape == (3, 2, 1, 16, 16)
    assert first["gain"].shape == (3, 2, 1, 1, 1)
