"""Targets of instance segmentation: closed forms, and each against an independent computation with scipy."""

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from scipy.ndimage import binary_dilation, convolve1d, distance_transform_edt

from emsuite.losses.target import HeadOutput
from emsuite.losses.voxelwise import bce, dice
from emsuite.targets.foreground_contour_distance import (
    contour,
    foreground,
    instance_distance,
    semantic_distance,
)
from emsuite.targets.head import Head, LabelCrop
from emsuite.targets.heads import AnyHead
from emsuite.targets.make import TargetMaker


def head(**settings: object) -> Head:
    return TypeAdapter(AnyHead).validate_python(settings)


def random_labels(seed: int = 0, shape: tuple[int, ...] = (2, 5, 24, 27)) -> torch.Tensor:
    """Touching boxes on background, one crossing the border of the array."""
    generator, labels = np.random.default_rng(seed), np.zeros(shape, np.int32)
    for sample in labels:
        for number in range(1, 9):
            begin = [int(generator.integers(0, n - 2)) for n in sample.shape]
            sample[tuple(slice(b, b + int(generator.integers(2, 12))) for b in begin)] = number
    return torch.from_numpy(labels)


ROW = torch.tensor([1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 0, 0, 0, 0], dtype=torch.int32).view(1, 1, 1, -1)


def test_a_row_of_two_instances() -> None:
    assert foreground(ROW).view(-1).tolist() == [1] * 10 + [0] * 4
    assert contour(ROW).view(-1).tolist() == [0, 0, 0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 0, 0]
    assert contour(ROW, width=0).view(-1).tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0]
    distances = np.tanh([*(d / 8 for d in range(10, 0, -1)), *(-d / 50 for d in range(1, 5))])
    assert semantic_distance(ROW).view(-1).numpy() == pytest.approx(distances, abs=1e-6)


def test_distance_of_an_instance_is_1_in_its_middle_and_halves_towards_its_border() -> None:
    cube = torch.zeros((1, 5, 9, 9), dtype=torch.int32)
    cube[0, :, 2:7, 2:7] = 3
    # pixels to the side: 1 2 3 2 1; sections to the faces, which count as background: 2 4 6 4 2
    distance = instance_distance(cube)[0]
    assert distance[2, 4, 1:8].tolist() == pytest.approx([-1, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3, -1])
    assert distance[:, 4, 4].tolist() == pytest.approx([2 / 3, 1, 1, 1, 2 / 3])
    assert instance_distance(cube, z_scale=1.0)[0, :, 4, 4].tolist() == pytest.approx([1 / 3, 2 / 3, 1, 2 / 3, 1 / 3])


def test_sections_without_background_or_without_foreground() -> None:
    labels = torch.stack([torch.ones(4, 5), torch.zeros(4, 5)]).int()[None]
    values = semantic_distance(labels)
    assert values[0, 0].unique().tolist() == pytest.approx([np.tanh(5)])
    assert values[0, 1].unique().tolist() == pytest.approx([-np.tanh(5)])
    assert instance_distance(torch.zeros(1, 2, 3, 4, dtype=torch.int32)).unique().tolist() == [-1]


def slow_contour(labels: np.ndarray, axes: tuple[int, ...], width: int) -> np.ndarray:
    differs = [convolve1d(labels.astype(np.int64), [1, 0, -1], axis=axis, mode="nearest") != 0 for axis in axes]
    # a difference of ids is 0 for equal ids alone
    box = np.ones([2 * width + 1 if axis in axes else 1 for axis in range(labels.ndim)], bool)
    return binary_dilation(np.any(differs, axis=0), box)


@pytest.mark.parametrize("seed", range(3))
def test_contours_equal_differences_that_scipy_dilates(seed: int) -> None:
    labels = random_labels(seed)
    for sample, made, in_volume in zip(labels, contour(labels), contour(labels, False, 2), strict=True):
        assert np.array_equal(made.numpy() != 0, slow_contour(sample.numpy(), (1, 2), 1))
        assert np.array_equal(in_volume.numpy() != 0, slow_contour(sample.numpy(), (0, 1, 2), 2))


def slow_semantic_distance(labels: np.ndarray, sampling: tuple[float, ...]) -> np.ndarray:
    mask = labels != 0
    inside = np.full(labels.shape, 5.0) if mask.all() else distance_transform_edt(mask, sampling) / 8
    outside = np.full(labels.shape, 5.0) if not mask.any() else distance_transform_edt(~mask, sampling) / 50
    return np.tanh(inside - outside)


def slow_instance_distance(labels: np.ndarray, sampling: tuple[float, ...]) -> np.ndarray:
    values = np.full(labels.shape, -1.0)
    inner = (slice(1, -1),) * labels.ndim
    for number in np.unique(labels[labels != 0]):
        distance = distance_transform_edt(np.pad(labels == number, 1), sampling)[inner]
        values = np.where(labels == number, distance / distance.max(), values)
    return values


@pytest.mark.parametrize("seed", range(3))
def test_distances_equal_those_of_scipy(seed: int) -> None:
    labels = random_labels(seed)
    labels[0, 1], labels[0, 2] = 7, 0
    for sample, flat, deep, instances, of_sections in zip(
        labels.numpy(), semantic_distance(labels), semantic_distance(labels, in_sections=False, z_scale=3),
        instance_distance(labels), instance_distance(labels, in_sections=True), strict=True,
    ):  # fmt: skip
        sections = [slow_semantic_distance(section, (1, 1)) for section in sample]
        assert np.allclose(flat, sections, atol=1e-6)
        assert np.allclose(deep, slow_semantic_distance(sample, (3, 1, 1)), atol=1e-6)
        assert np.allclose(instances, slow_instance_distance(sample, (2, 1, 1)), atol=1e-6)
        assert np.allclose(of_sections, [slow_instance_distance(s, (1, 1)) for s in sample], atol=1e-6)


def test_a_contour_is_that_of_the_whole_volume_whatever_the_crop() -> None:
    labels = random_labels(shape=(1, 5, 24, 27))
    settings = head(target="contour")
    maker = TargetMaker({"contour": settings}, (8, 8, 8))
    assert maker.label_context == ((0, 2, 2), (0, 2, 2))
    crop, mask = labels[:, 1:4, 3:20, 4:24], torch.ones(1, 3, 17, 20, dtype=torch.uint8)
    assert torch.equal(maker(crop, mask, 1)["contour"].values[:, 0], contour(labels)[:, 1:4, 5:18, 6:22])


def test_voxels_out_of_the_mask_count_0_and_so_do_contours_that_see_them() -> None:
    labels = torch.ones((1, 1, 12, 12), dtype=torch.int32)
    mask = torch.ones_like(labels, dtype=torch.uint8)
    mask[..., 6:], labels[..., 6:] = 0, 0
    heads = {name: head(target=name) for name in ("foreground", "contour", "distance")}
    targets = TargetMaker(heads, (8, 8, 8))(labels, mask, 1)
    # the output begins behind the two voxels that a contour sees
    assert targets["foreground"].weights[0, 0, 0, 0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert targets["distance"].weights[0, 0, 0, 0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert targets["contour"].weights[0, 0, 0, 0].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    scored = targets["contour"]
    assert (scored.values * scored.weights).sum() == 0, "the end of annotation is no contour"


def test_a_distance_reads_as_much_context_as_it_is_told() -> None:
    labels = random_labels(shape=(1, 3, 30, 30))
    wide, narrow = head(target="distance", context=4), head(target="distance")
    inner = (slice(0, 3), slice(6, 24), slice(6, 24))
    crop = LabelCrop(labels, None, inner, (8, 8, 8))
    assert wide.label_context((8, 8, 8)) == ((0, 4, 4), (0, 4, 4))
    assert torch.equal(wide.make(crop).values[:, 0], semantic_distance(labels[..., 2:28, 2:28])[..., 4:-4, 4:-4])
    assert torch.equal(narrow.make(crop).values[:, 0], semantic_distance(labels[..., 6:24, 6:24]))
    deep = head(target="distance", of="instances", context=1)
    assert deep.label_context((8, 8, 8)) == ((1, 1, 1), (1, 1, 1))


def test_distances_are_stored_as_uint8_from_minus_1_to_1() -> None:
    distance = head(target="distance")
    assert (distance.activation, distance.stored_as) == ("tanh", "uint8")
    assert distance.to_unit_range(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [0.0, 0.5, 1.0]


def test_further_losses_are_added_with_their_factors() -> None:
    both = head(target="foreground", further_losses={"dice": 0.5})
    target = both.make(LabelCrop(random_labels(), None, (slice(None),) * 3, (8, 8, 8)))
    output = HeadOutput(torch.randn_like(target.values), torch.sigmoid)
    assert both.compute_loss(output, target) == bce(output, target) + 0.5 * dice(output, target)
    assert both.loss_names == {"bce", "dice"}
    assert both.architecture() == head(target="foreground").architecture()


@pytest.mark.parametrize("settings", [{"loss": "bce"}, {"further_losses": {"dice": 1}}, {"loss": "malis"}])
def test_losses_that_do_not_fit_a_distance_are_refused(settings: dict) -> None:
    with pytest.raises(ValidationError, match="the loss '"):
        head(target="distance", **settings)


def test_unknown_losses_are_refused() -> None:
    with pytest.raises(ValidationError, match="no loss 'focal'"):
        head(target="foreground", further_losses={"focal": 1})
