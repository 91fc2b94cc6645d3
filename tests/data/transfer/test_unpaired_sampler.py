"""Samples of two domains that do not belong together."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from emsuite.augment.elastic import Elastic
from emsuite.augment.intensity import Intensity
from emsuite.augment.mirror import MirrorTranspose
from emsuite.common.errors import BadInput
from emsuite.common.pipelining import prefetch
from emsuite.data.transfer.domain import Domain, load_domain
from emsuite.data.transfer.settings import Box, DomainSettings, DomainVolume, NormalizedChange, UnpairedSettings
from emsuite.data.transfer.unpaired_sampler import UnpairedSampler
from emsuite.io.volume import create_volume

VOXEL, SHAPE, SIZE = (8, 8, 8), (6, 8, 10), (30, 34, 38)
TURNS = MirrorTranspose(name="mirror_transpose", mirror=(0, 1, 2), transpose=(0, 1, 2))
AUGMENT = (
    Elastic(name="elastic", control_point_spacing=(9, 9, 9), jitter_sigma=(1, 1, 1), rotation=(0, math.pi)),
    TURNS,
    Intensity(name="intensity"),
)
CHANGE = UnpairedSettings(change=NormalizedChange())


def domain(folder: Path, name: str, labelled: bool = False, boxes: tuple = (), **keys) -> Domain:
    """Grey values are a linear function of the voxel's place, so that they tell where a sample was taken."""
    if not (folder / f"{name}.zarr").exists():
        z, y, x = np.indices(SIZE)
        raw = (z * 4 + y * 2 + x) if name == "a" else 255 - z - y - x
        create_volume(folder / f"{name}.zarr/raw", SIZE, np.uint8, VOXEL, (0, 0, 0)).array[...] = raw
        labels = np.arange(1, math.prod(SIZE) + 1, dtype=np.uint32).reshape(SIZE)
        create_volume(folder / f"{name}.zarr/labels", SIZE, np.uint32, VOXEL, (0, 0, 0)).array[...] = labels
    labels = folder / f"{name}.zarr/labels" if labelled else None
    volume = DomainVolume(raw=folder / f"{name}.zarr/raw", labels=labels, boxes=boxes)
    return load_domain(DomainSettings(volumes=(volume,), **keys), name, VOXEL, SHAPE)


def test_a_sample_is_a_normalized_piece_with_its_labels(tmp_path: Path) -> None:
    a, b = domain(tmp_path, "a", labelled=True), domain(tmp_path, "b", scaling="signed_unit_range")
    sample = UnpairedSampler(a, b, SHAPE, seed=3).batch(7, 3)
    assert (sample.a.shape, sample.a.dtype) == ((3, 1, *SHAPE), torch.float32)
    assert sample.labels is not None
    assert (sample.labels.shape, sample.labels.dtype) == ((3, *SHAPE), torch.int32)
    for number in range(3):
        z, y, x = np.unravel_index(int(sample.labels[number, 0, 0, 0]) - 1, SIZE)
        index = np.s_[z : z + 6, y : y + 8, x : x + 10]
        places = np.indices(SIZE)
        raw = torch.tensor((places[0] * 4 + places[1] * 2 + places[2])[index], dtype=torch.uint8)
        assert torch.equal(sample.a[number, 0], a.statistics.normalized(raw))
        assert int(sample.labels[number, -1, -1, -1]) - 1 == np.ravel_multi_index((z + 5, y + 7, x + 9), SIZE)
    assert torch.equal(sample.b * 127.5 + 127.5, torch.round(sample.b * 127.5 + 127.5))


def test_without_labels_there_are_none(tmp_path: Path) -> None:
    sampler = UnpairedSampler(domain(tmp_path, "a"), domain(tmp_path, "b"), SHAPE)
    assert not sampler.has_labels
    assert sampler.batch(0, 1).labels is None


@pytest.mark.parametrize("stream", [True, False])
def test_a_sample_depends_on_seed_iteration_and_number_alone(tmp_path: Path, stream: bool) -> None:
    def sampler(seed: int = 5, stream: bool = False) -> UnpairedSampler:
        a = domain(tmp_path, "a", labelled=True, stream=stream)
        return UnpairedSampler(a, domain(tmp_path, "b", stream=stream), SHAPE, CHANGE, AUGMENT, seed)

    whole, parts = sampler().batch(9, 6), sampler(stream=stream)
    for first, size in ((4, 2), (0, 3), (3, 1)):
        part = parts.batch(9, size, first)
        assert torch.equal(part.a, whole.a[first : first + size])
        assert torch.equal(part.b, whole.b[first : first + size])
    for other in (sampler().batch(10, 6), sampler(6).batch(9, 6)):
        assert not torch.equal(other.a, whole.a)
        assert not torch.equal(other.b, whole.b)
    assert len({whole.a[number].sum().item() for number in range(6)}) == 6


def test_any_number_of_workers_draws_the_same_samples(tmp_path: Path) -> None:
    sampler = UnpairedSampler(domain(tmp_path, "a", True), domain(tmp_path, "b"), SHAPE, CHANGE, AUGMENT)
    expected = [sampler.batch(iteration, 2) for iteration in range(6)]
    for workers in (1, 3):
        drawn = list(prefetch(lambda iteration: sampler.batch(iteration, 2), 0, 6, workers + 1, workers))
        for one, other in zip(drawn, expected, strict=True):
            assert torch.equal(one.a, other.a)
            assert torch.equal(one.b, other.b)
            assert torch.equal(one.labels, other.labels)


def test_draws_of_the_two_domains_are_independent(tmp_path: Path) -> None:
    a = domain(tmp_path, "a", scaling="signed_unit_range")
    settings = DomainSettings(volumes=(DomainVolume(raw=tmp_path / "a.zarr/raw"),), scaling="signed_unit_range")
    twin = load_domain(settings, "b", VOXEL, SHAPE)
    sample = UnpairedSampler(a, twin, SHAPE).batch(0, 200)
    first, second = (each[:, 0, 0, 0, 0].double().numpy() for each in (sample.a, sample.b))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2


def test_classes_are_drawn_alike_then_boxes_then_places(tmp_path: Path) -> None:
    boxes = (
        Box(roi="0:80,:,:", class_name="dense"),
        Box(roi="80:128,:,:", class_name="sparse"),
        Box(roi="128:176,:,:", class_name="sparse"),
        Box(roi="176:240,:,:", class_name="sparse"),
    )
    a = domain(tmp_path, "a", True, boxes)
    sample, number = UnpairedSampler(a, domain(tmp_path, "b"), SHAPE, seed=1).batch(0, 1200), 1200
    assert sample.labels is not None
    z = (sample.labels[:, 0, 0, 0].numpy() - 1) // (SIZE[1] * SIZE[2])
    counts = Counter(np.searchsorted([10, 16, 22], z, side="right").tolist())
    for box, share in enumerate((1 / 2, 1 / 6, 1 / 6, 1 / 6)):
        assert abs(counts[box] - share * number) < 4 * math.sqrt(number * share * (1 - share)), counts
    starts = Counter(z[z < 10].tolist())
    assert set(starts) == {0, 1, 2, 3, 4}  # 6 sections of 10: none reaches into the next box
    assert set(z[(z >= 10)].tolist()) == {10, 16, 22, 23, 24}
    for place in starts.values():
        assert abs(place - number / 10) < 4 * math.sqrt(number / 10)


def test_no_augmented_sample_reads_beyond_its_box(tmp_path: Path) -> None:
    """Outside the box all is 255: grey values of the box stay below."""
    raw = np.full((30, 30, 30), 255, np.uint8)
    raw[6:26, 6:26, 6:26] = 100
    raw[16, 16, 16] = 101  # images of one value are refused
    create_volume(tmp_path / "c.zarr/raw", raw.shape, np.uint8, VOXEL, (0, 0, 0)).array[...] = raw
    volume = DomainVolume(raw=tmp_path / "c.zarr/raw", boxes=("48:208,48:208,48:208",))
    for reflect in (True, False):
        settings = DomainSettings(volumes=(volume,), scaling="signed_unit_range", reflect=reflect)
        inner = [load_domain(settings, name, VOXEL, SHAPE) for name in "ab"]
        drawn = UnpairedSampler(*inner, SHAPE, augment=AUGMENT[:2]).batch(0, 40)
        assert torch.allclose(drawn.a, torch.tensor(100 / 127.5 - 1), atol=1 / 127)


def test_axes_are_permuted_and_flipped_alike_often(tmp_path: Path) -> None:
    """48 orientations of a cube; grey values rise by 4, 2 and 1 along z, y and x."""
    a, cube = domain(tmp_path, "a", scaling="signed_unit_range"), (6, 6, 6)
    drawn = UnpairedSampler(a, domain(tmp_path, "b"), cube, augment=(TURNS,)).batch(0, 960).a[:, 0] * 127.5
    steps = [drawn.diff(dim=axis).mean(dim=(1, 2, 3)).round().int().tolist() for axis in (1, 2, 3)]
    counts = Counter(zip(*steps, strict=True))
    assert len(counts) == 48
    assert sorted({tuple(sorted(map(abs, step))) for step in counts}) == [(1, 2, 4)]
    assert sum((count - 20) ** 2 / 20 for count in counts.values()) < 85  # 47 degrees of freedom, p = 0.0005


def test_normalized_values_are_scaled_and_shifted_last(tmp_path: Path) -> None:
    a, b = domain(tmp_path, "a"), domain(tmp_path, "b")
    plain = UnpairedSampler(a, b, SHAPE).batch(0, 400)
    changed = UnpairedSampler(a, b, SHAPE, CHANGE).batch(0, 400)
    for before, after in ((plain.a, changed.a), (plain.b, changed.b)):
        before, after = before.double().flatten(1), after.double().flatten(1)
        scale = after.std(dim=1) / before.std(dim=1)
        shift = after.mean(dim=1) - scale * before.mean(dim=1)
        assert torch.allclose(after, before * scale[:, None] + shift[:, None], atol=1e-5)
        assert 1 <= float(scale.min()) < 1.003
        assert 1.047 < float(scale.max()) <= 1.0500001
        assert -0.0501 <= float(shift.min()) < -0.047
        assert 0.047 < float(shift.max()) <= 0.0501
    assert not torch.allclose(plain.a - changed.a, plain.b - changed.b)


def test_patches_are_drawn_as_boxes_are(tmp_path: Path) -> None:
    stack = np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1) + np.zeros((8, 1, 12, 12), np.uint8)
    tifffile.imwrite(tmp_path / "trainA.tif", stack, photometric="minisblack")
    tifffile.imwrite(tmp_path / "trainS.tif", stack.astype(np.uint16), photometric="minisblack")
    settings = DomainSettings(patches=tmp_path / "trainA.tif", patch_labels=tmp_path / "trainS.tif")
    a = load_domain(settings.model_copy(update={"scaling": "signed_unit_range"}), "a", VOXEL, (1, 8, 8))
    sample = UnpairedSampler(a, domain(tmp_path, "b"), (1, 8, 8)).batch(0, 400)
    counts = Counter((sample.a[:, 0, 0, 0, 0] * 127.5 + 127.5).round().int().tolist())
    assert set(counts) == set(range(8))
    assert all(20 < count < 85 for count in counts.values())
    assert sample.labels is not None
    assert torch.equal(sample.labels[:, 0] > 0, sample.a[:, 0, 0] > -1)


def test_labels_of_b_and_boxes_that_are_too_small_are_refused(tmp_path: Path) -> None:
    a = domain(tmp_path, "a", labelled=True)
    with pytest.raises(BadInput, match="domain b: has labels"):
        UnpairedSampler(a, a, SHAPE)
    with pytest.raises(BadInput, match=r"a box of \(30, 34, 38\) voxels of domain a, expected at least"):
        UnpairedSampler(a, domain(tmp_path, "b"), (30, 36, 38))
