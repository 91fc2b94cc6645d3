"""Samples: placed, aligned, reproducible."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from emsuite.augment.elastic import Elastic
from emsuite.augment.intensity import Intensity
from emsuite.augment.interpolate import linear_torch, nearest_torch
from emsuite.augment.mirror import MirrorTranspose
from emsuite.augment.noise import Noise
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate
from emsuite.common.pipelining import prefetch
from emsuite.data.sampler import Sampler, SamplingSettings
from emsuite.data.training_volume import TrainingVolume, load_training_volume

ZEBRAFINCH = (
    Elastic(name="elastic", control_point_spacing=(4, 4, 10), jitter_sigma=(0, 2, 2), rotation=(0, math.pi / 2),
            slip=0.05, shift=0.05, max_misalign=10, subsample=8),
    MirrorTranspose(name="mirror_transpose", transpose=(1, 2)),
)  # fmt: skip
FIB25 = (
    Elastic(name="elastic", control_point_spacing=(40, 40, 40), jitter_sigma=(0, 0, 0), rotation=(0, math.pi / 2)),
    MirrorTranspose(name="mirror_transpose", transpose=(0, 1, 2)),
    Elastic(name="elastic", control_point_spacing=(40, 40, 40), jitter_sigma=(2, 2, 2), slip=0.01, shift=0.01,
            max_misalign=1, subsample=8),
)  # fmt: skip
TURNS = (MirrorTranspose(name="mirror_transpose", transpose=(0, 1, 2)),)
VALUES = (Intensity(name="intensity", per_section=True), Noise(name="noise"))

SHAPE = (30, 40, 50)


def volume(raw: torch.Tensor, labels: torch.Tensor, raw_from=(0, 0, 0), mask=None, voxel=(8, 8, 8)) -> TrainingVolume:
    """Labels begin at 80 nm; `raw_from` is where raw begins, in voxels before them."""
    mask = torch.ones_like(labels, dtype=torch.uint8) if mask is None else mask
    begin = Coordinate(80, 80, 80)
    return TrainingVolume(
        raw, labels, mask, Coordinate(voxel), begin - Coordinate(raw_from) * Coordinate(voxel), begin, "v"
    )


def numbered(raw_from=(0, 0, 0), axis: int = 0, shape=SHAPE) -> TrainingVolume:
    """Every voxel a label of its own; raw rises linearly along `axis`, so that it says where it was read."""
    labels = torch.arange(1, math.prod(shape) + 1, dtype=torch.int32).view(shape)
    around = [n + 2 * b for n, b in zip(shape, raw_from, strict=True)]
    ramp = torch.arange(around[axis], dtype=torch.float32) / 100
    raw = ramp.view([-1 if a == axis else 1 for a in range(3)]).expand(around).contiguous()
    return volume(raw, labels, raw_from)


def test_without_augmentation_a_sample_is_a_piece_of_the_volume():
    raw = torch.randint(0, 256, (40, 50, 60), dtype=torch.uint8)
    whole = replace(numbered(), raw=raw, raw_offset=Coordinate(40, 40, 40))
    sample = Sampler([whole], (12, 14, 16), (6, 6, 8), ((1, 2, 3), (0, 1, 4))).draw(0)
    assert sample["raw"].shape == (1, 12, 14, 16)
    assert sample["labels"].shape == sample["mask"].shape == (7, 9, 15)
    (begin,) = [(origin - whole.labels_offset) / whole.voxel_size for origin in sample.origins]
    z, y, x = begin + Coordinate(5, 5, 5) - Coordinate(3, 4, 4)
    assert torch.equal(sample["raw"][0], raw[z : z + 12, y : y + 14, x : x + 16].float() / 255)
    z, y, x = begin
    assert sample["labels"][1, 2, 3] == whole.labels[z, y, x]
    assert sample["labels"].dtype == torch.int32


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("steps", [TURNS, ZEBRAFINCH, FIB25], ids=["turns", "zebrafinch", "fib25"])
def test_labels_stay_with_their_raw(steps, axis):
    around = (10, 10, 10)
    sampler = Sampler([numbered(around, axis)], (14, 18, 22), (14, 18, 22), augmentations=steps)
    for iteration in range(4):
        sample = sampler.draw(iteration)
        labelled = sample["labels"] > 0
        assert labelled.float().mean() > 0.4
        assert torch.equal(labelled, sample["mask"] == 1)
        label = np.unravel_index(sample["labels"][labelled].numpy() - 1, SHAPE)[axis]
        raw = sample["raw"][0][labelled].numpy() * 100 - around[axis]
        # the nearest voxel is at most half a voxel from the place that raw was read at
        assert np.abs(raw - label).max() <= 0.501
        if steps is TURNS:
            assert np.abs(raw - label).max() < 1e-4


@pytest.mark.parametrize("steps", [(), TURNS, ZEBRAFINCH, FIB25], ids=["none", "turns", "zebrafinch", "fib25"])
def test_context_adds_labels_around_and_changes_none(steps):
    bare = Sampler([numbered()], (20, 24, 24), (10, 12, 12), augmentations=steps)
    more = Sampler([numbered()], (20, 24, 24), (10, 12, 12), ((3, 2, 4), (1, 0, 2)), steps)
    for iteration in range(3):
        alone, around = bare.draw(iteration), more.draw(iteration)
        assert torch.equal(around["labels"][3:-1, 2:, 4:-2], alone["labels"])
        assert torch.equal(around["raw"], alone["raw"])


def test_the_same_seed_draws_the_same_in_any_order_and_on_any_worker():
    def make(seed: int) -> Sampler:
        return Sampler([numbered()], (16, 16, 16), (8, 8, 8), augmentations=(*FIB25, *VALUES),
                       settings=SamplingSettings(seed=seed))  # fmt: skip

    def same(first, second) -> bool:
        pairs = ((first["raw"], second["raw"]), (first["labels"], second["labels"]), (first["mask"], second["mask"]))
        return all(torch.equal(a, b) for a, b in pairs)

    straight = [make(1).draw(iteration) for iteration in range(6)]
    ahead = prefetch(make(1).draw, 0, 6, ahead=3, workers=3)
    assert all(same(a, b) for a, b in zip(straight, ahead, strict=True))
    resumed = make(1)
    assert same(resumed.draw(5), straight[5])
    assert same(resumed.draw(3), straight[3])
    assert not same(straight[0], straight[1])
    assert not same(make(2).draw(0), straight[0])
    assert not same(resumed.draw(0, 1), straight[0])
    batch = resumed.batch(2, 3)
    assert batch["raw"].shape == (3, 1, 16, 16, 16)
    assert len(batch.origins) == 3
    assert torch.equal(batch["labels"][1], resumed.draw(2, 1)["labels"])
    assert torch.equal(batch["raw"][0], straight[2]["raw"])


def test_every_draw_has_enough_of_the_mask():
    mask = torch.zeros(SHAPE, dtype=torch.uint8)
    mask[:, :, :15] = 1
    mask[15:, 25:, :] = 1
    settings = SamplingSettings(min_masked=0.6, label_padding=(32, 40, 80))
    sampler = Sampler([replace(numbered(), mask=mask)], (8, 10, 12), (8, 10, 12), settings=settings)
    shares = [sampler.draw(iteration)["mask"].float().mean().item() for iteration in range(300)]
    assert min(shares) >= 0.6
    assert min(shares) < 0.7
    assert max(shares) == 1


def test_all_places_are_alike():
    sampler = Sampler([numbered(shape=(4, 5, 6))], (3, 3, 3), (3, 3, 3))
    corners = [int(sampler.draw(iteration)["labels"][0, 0, 0]) for iteration in range(2000)]
    _, counts = np.unique(corners, return_counts=True)
    assert len(counts) == 2 * 3 * 4
    assert chisquare(counts).pvalue > 1e-3


def test_padding_is_zero_without_end_for_raw_and_as_far_as_asked_for_labels():
    ones = volume(torch.full((6, 6, 6), 255, dtype=torch.uint8), torch.ones((6, 6, 6), dtype=torch.int32))
    settings = SamplingSettings(min_masked=0.1, label_padding=(24, 0, 0))
    sampler = Sampler([ones], (30, 30, 30), (6, 6, 6), ((4, 4, 4), (4, 4, 4)), settings=settings)
    begins = set()
    for iteration in range(40):
        sample = sampler.draw(iteration)
        begins.add((sample.origins[0] - ones.labels_offset)[0] // 8)
        assert sample["raw"].sum() == 6**3
        assert torch.equal(sample["mask"], sample["labels"].byte())
        assert sample["mask"].sum() == 6**3
        assert sample["mask"][4:-4, 4:-4, 4:-4].float().mean() >= 0.5
    assert begins == set(range(-3, 4))


def test_volumes_are_drawn_as_often_as_asked_for():
    volumes = [numbered(shape=(4, 4, 4))] * 4
    sampler = Sampler(volumes, (2, 2, 2), (2, 2, 2), settings=SamplingSettings(probabilities=(0.1, 0, 0.45, 0.45)))
    drawn = np.bincount([sampler.draw(iteration).volumes[0] for iteration in range(1000)], minlength=4)
    assert drawn[1] == 0
    assert chisquare(drawn[[0, 2, 3]], [100, 450, 450]).pvalue > 1e-3


def test_values_change_after_the_geometry_and_stay_in_range():
    sampler = Sampler([numbered()], (16, 16, 16), (8, 8, 8), augmentations=(*FIB25, *VALUES))
    plain = Sampler([numbered()], (16, 16, 16), (8, 8, 8), augmentations=FIB25)
    changed, kept = sampler.draw(0), plain.draw(0)
    assert torch.equal(changed["labels"], kept["labels"])
    assert not torch.equal(changed["raw"], kept["raw"])
    assert changed["raw"].min() >= 0
    assert changed["raw"].max() <= 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"output_shape": (31, 8, 8)}, "v: labels of .* expected room for an output of"),
        ({"settings": SamplingSettings(min_masked=0.5, label_padding=(9, 9, 9))}, "label_padding: .* multiples of"),
        ({"settings": SamplingSettings(probabilities=(1, 2))}, "probabilities: 2 for 1 volumes"),
        ({"settings": SamplingSettings(probabilities=(0,))}, "probabilities: all are 0"),
        ({"augmentations": (VALUES[0], TURNS[0])}, "augment: 'mirror_transpose' moves voxels"),
        ({"volumes": []}, "no volumes"),
        ({"volumes": [volume(torch.rand(9, 9, 9), torch.ones(9, 9, 9).int(), voxel=(20, 9, 9))],
          "augmentations": TURNS}, "transpose .* expected axes"),
        ({"volumes": [numbered(), replace(numbered(), voxel_size=Coordinate(8, 8, 4))]}, "expected those of v"),
        ({"volumes": [replace(numbered(), mask=torch.zeros(SHAPE).byte())]}, "0% of them masked in"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(changed, message):
    arguments = {"volumes": [numbered()], "input_shape": (8, 8, 8), "output_shape": (8, 8, 8)} | changed
    with pytest.raises(BadInput, match=message) as refused:
        Sampler(**arguments)
    assert "\n" not in str(refused.value)


def test_torch_reads_what_the_compiled_loop_reads(monkeypatch):
    sampler = Sampler([numbered((4, 4, 4))], (16, 20, 20), (8, 12, 12), ((2, 2, 2), (2, 2, 2)), FIB25)
    compiled = sampler.draw(0)
    monkeypatch.setattr("emsuite.augment.resample.linear", linear_torch)
    monkeypatch.setattr("emsuite.augment.resample.nearest", nearest_torch)
    plain = sampler.draw(0)
    torch.testing.assert_close(plain["raw"], compiled["raw"])
    assert torch.equal(plain["labels"], compiled["labels"])
    assert torch.equal(plain["mask"], compiled["mask"])


def test_a_published_sample_of_fib25(fib25_slab):
    settings = SamplingSettings(label_padding=(608, 768, 768))
    slab = load_training_volume(fib25_slab)
    sampler = Sampler([slab], (112, 112, 112), (60, 60, 60), ((30, 30, 30), (30, 30, 30)),
                      (*FIB25, Intensity(name="intensity")), settings)  # fmt: skip
    sample = sampler.draw(0)
    assert sample["raw"].shape == (1, 112, 112, 112)
    assert sample["labels"].shape == (120, 120, 120)
    assert set(sample["labels"].unique().tolist()) <= set(slab.labels.unique().tolist())
    assert 0.3 < sample["raw"][0, 26:-26, 26:-26, 26:-26].mean() < 0.8


def test_a_volume_without_labels_yields_raw_alone():
    whole = numbered()
    unlabelled = replace(whole, labels=None, mask=None, labels_offset=whole.raw_offset)
    sampler = Sampler([unlabelled], (12, 14, 16), (6, 6, 8))
    sample = sampler.batch(3, 2)
    assert list(sample.arrays) == ["raw"]
    assert sample["raw"].shape == (2, 1, 12, 14, 16)
    begin = (sample.origins[0] - unlabelled.raw_offset) / unlabelled.voxel_size - Coordinate(3, 4, 4)
    seen = [max(n, 0) for n in begin]
    inside = tuple(slice(s - b, None) for s, b in zip(seen, begin, strict=True))
    voxel = sample["raw"][0, 0][inside].flatten()[0]
    assert voxel == whole.raw[tuple(seen)]


def test_labels_in_one_volume_alone_are_refused():
    whole = numbered()
    with pytest.raises(BadInput, match="labels in one volume alone"):
        Sampler([whole, replace(whole, labels=None, mask=None)], (12, 14, 16), (6, 6, 8))


def test_raw_alone_is_read_from_a_file(tmp_path):
    from emsuite.data.training_volume import load_unlabelled_volume
    from emsuite.io.volume import create_volume

    array = create_volume(tmp_path / "v.zarr/volumes/raw", (8, 9, 10), np.uint8, (40, 4, 4), (0, 8, 0))
    array.write(array.roi, np.arange(720, dtype=np.uint16).reshape(8, 9, 10).astype(np.uint8))
    whole, streamed = (load_unlabelled_volume(tmp_path / "v.zarr", stream) for stream in (False, True))
    assert (whole.labels, whole.mask, whole.labels_offset) == (None, None, Coordinate(0, 8, 0))
    assert torch.equal(whole.raw[2:4, :, 1:5], streamed.raw[2:4, :, 1:5])
    assert (len(whole.tensors), len(streamed.tensors)) == (1, 0)


def read_outside(sampler: Sampler, iterations: int) -> float:
    """The share of samples of which some labels lie outside; every voxel of the volume has a label above 0."""
    return np.mean([bool((sampler.draw(iteration)["labels"] == 0).any()) for iteration in range(iterations)])


@pytest.mark.parametrize("raw_from", [(4, 12, 12), (4, 6, 6)])
def test_inside_means_that_all_that_is_read_lies_inside(raw_from):
    elastic = replace_slips(ZEBRAFINCH)
    make = lambda inside: Sampler(  # noqa: E731
        [numbered(raw_from, shape=(40, 90, 90))], (12, 16, 16), (6, 8, 8), ((1, 1, 1), (0, 0, 0)), elastic,
        SamplingSettings(inside=inside, min_masked=0))  # fmt: skip
    assert read_outside(make(True), 60) == 0
    assert read_outside(make(False), 60) > 0.05
    sampler = make(True)
    assert len({sampler.draw(iteration).origins for iteration in range(30)}) > 20
    assert sampler.draw(7).origins == make(True).draw(7).origins


def replace_slips(steps):
    return (steps[0].model_copy(update={"slip": 0.05, "shift": 0.02, "max_misalign": 4}), *steps[1:])


def test_inside_positions_are_drawn_evenly_where_enough_is_masked_in():
    mask = torch.zeros(SHAPE, dtype=torch.uint8)
    mask[:, 20:, :] = 1
    settings = SamplingSettings(inside=True, min_masked=1)
    sampler = Sampler([replace(numbered((0, 0, 0)), mask=mask)], (14, 18, 20), (10, 10, 12), settings=settings)
    places = np.array([sampler.draw(iteration).origins[0] for iteration in range(900)]) // 8 - 10
    assert (places.min(axis=0) >= (2, 20, 4)).all()
    assert (places.max(axis=0) <= (30 - 12, 40 - 14, 50 - 16)).all()
    for axis, (low, high) in enumerate(((2, 18), (20, 26), (4, 34))):
        assert chisquare(np.bincount(places[:, axis] - low, minlength=high - low + 1)).pvalue > 1e-3


def test_what_does_not_fit_inside_lies_in_the_middle():
    sampler = Sampler([numbered()], (28, 48, 20), (20, 20, 12), settings=SamplingSettings(inside=True, min_masked=0))
    places = np.array([sampler.draw(iteration).origins[0] for iteration in range(60)]) // 8 - 10
    assert set(places[:, 1]) == {10}
    assert set(places[:, 0]) == {4, 5, 6}


def test_inside_and_padding_exclude_each_other():
    with pytest.raises(ValueError, match="expected a label_padding of 0"):
        SamplingSettings(inside=True, label_padding=(8, 0, 0))
