"""Local shape descriptors: closed forms first, then the definition in SciPy, then what lsds itself computed."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from scipy.ndimage import gaussian_filter

import emsuite.targets.lsds
from emsuite.common.errors import BadInput
from emsuite.targets.lsds import batch_descriptors, local_shape_descriptors

PEERS = Path(__file__).resolve().parents[1] / "fixtures" / "peers_targets.npz"
OFFSET, VARIANCE, PEARSON, SIZE = slice(0, 3), slice(3, 6), slice(6, 9), 9


def definition(labels, sigma, voxel_size, downsample=1):
    """The descriptors label by label in float64, as the definition says them."""
    axes = range(labels.ndim)
    sigma = np.broadcast_to(np.asarray(sigma, float), labels.ndim)
    spacing = np.asarray(voxel_size, float) * downsample
    samples = labels[(slice(None, None, downsample),) * labels.ndim]
    place = np.stack(
        np.meshgrid(*(np.arange(n) * s for n, s in zip(samples.shape, spacing, strict=True)), indexing="ij")
    )
    tall = (-1, *(1,) * labels.ndim)

    def smooth(values):
        return gaussian_filter(values, sigma / spacing, mode="constant", cval=0, truncate=3)

    found = np.zeros((1 + 2 * labels.ndim + math.comb(labels.ndim, 2), *labels.shape))
    for label in np.unique(labels[labels != 0]):
        mask = (samples == label).astype(float)
        count = smooth(mask)
        count[count == 0] = 1
        mean = np.stack([smooth(place[a] * mask) / count for a in axes])
        variance = np.stack([smooth(place[a] ** 2 * mask) / count - mean[a] ** 2 for a in axes]).clip(min=1e-3)
        pearson = [(smooth(place[a] * place[b] * mask) / count - mean[a] * mean[b]) / np.sqrt(variance[a] * variance[b])
                   for a, b in itertools.combinations(axes, 2)]  # fmt: skip
        offset = (mean - place) / sigma.reshape(tall) / 2 + 0.5
        parts = np.concatenate([offset, variance / sigma.reshape(tall) ** 2, np.stack(pearson) / 2 + 0.5, count[None]])
        for axis in axes:
            parts = parts.repeat(downsample, axis + 1)
        inside = labels == label
        found[:, inside] = parts[(slice(None), *(slice(n) for n in labels.shape))][:, inside]
    return found.clip(0, 1)


def lumps(rng, shape, count):
    """Labels in lumps of a few voxels, with single strays and background."""
    coarse = rng.integers(0, count, [n // 3 + 1 for n in shape])
    fine = coarse.repeat(3, 0).repeat(3, 1).repeat(3, 2)[tuple(slice(n) for n in shape)]
    return np.where(rng.random(shape) < 0.1, np.roll(fine, (1, 2, 3), (0, 1, 2)), fine)


def test_a_voxel_alone_is_as_large_as_the_weight_of_its_own_place():
    labels = np.zeros((9, 9, 9), np.uint64)
    labels[4, 4, 4] = 7
    found = local_shape_descriptors(labels, 20, (10, 10, 10))
    weight = np.exp(-0.5 * (np.arange(-6, 7) / 2) ** 2)
    assert found[:, 4, 4, 4] == pytest.approx(
        [0.5] * 3 + [1e-3 / 400] * 3 + [0.5] * 3 + [weight.max() ** 3 / weight.sum() ** 3]
    )
    assert found[:, labels == 0].max() == 0


def test_a_label_without_end_has_the_moments_of_the_gaussian():
    found = local_shape_descriptors(np.ones((39, 33, 45), np.int32), (60, 50, 70), (10, 10, 10))[:, 19, 16, 22]
    assert found[OFFSET] == pytest.approx([0.5] * 3)
    cut = 1 - 2 * 3 * math.exp(-4.5) / math.sqrt(2 * math.pi) / math.erf(3 / math.sqrt(2))  # variance, cut at 3 sigma
    assert found[VARIANCE] == pytest.approx([cut] * 3, abs=0.01)
    assert found[PEARSON] == pytest.approx([0.5] * 3)
    assert found[SIZE] == pytest.approx(1)


def test_a_half_space_has_the_moments_of_a_truncated_normal():
    labels = np.zeros((121, 161), np.int64)
    labels[:, 60:] = 5
    found = local_shape_descriptors(labels, 100, (5, 5))
    for inward in (0, 10, 30):  # voxels from the plane; the voxels' faces are the plane
        depth = (inward + 0.5) * 5 / 100
        density = math.exp(-(depth**2) / 2) / math.sqrt(2 * math.pi)
        share = 0.5 * (1 + math.erf(depth / math.sqrt(2)))
        mean = density / share
        y_offset, x_offset, _, x_variance, pearson, size = found[:, 60, 60 + inward]
        assert (y_offset, pearson) == pytest.approx((0.5, 0.5))
        assert x_offset == pytest.approx(mean / 2 + 0.5, abs=6e-3)
        assert x_variance == pytest.approx(1 - depth * mean - mean**2, abs=4e-2)  # the Gaussian ends at 3 sigma
        assert size == pytest.approx(share, abs=5e-3)


def test_the_centre_of_a_ball_sees_a_ball():
    z, y, x = np.ogrid[-20:21, -20:21, -20:21]
    labels = (z**2 + y**2 + x**2 <= 15.0**2).astype(np.uint16)
    found = local_shape_descriptors(labels, 100, (10, 10, 10))[:, 20, 20, 20]
    radius = 1.5
    inside = math.erf(radius / math.sqrt(2)) - math.sqrt(2 / math.pi) * radius * math.exp(-(radius**2) / 2)
    assert found[SIZE] == pytest.approx(inside, abs=5e-3)
    assert found[OFFSET] == pytest.approx([0.5] * 3)
    assert found[PEARSON] == pytest.approx([0.5] * 3)
    wide = local_shape_descriptors(labels, 2000, (10, 10, 10))[:, 20, 20, 20]  # all voxels weigh the same
    assert wide[VARIANCE] == pytest.approx([150**2 / 5 / 2000**2] * 3, rel=0.01)


def test_a_box_under_a_wide_gaussian_has_the_moments_of_a_uniform_distribution():
    labels = np.zeros((8, 12, 20), np.int64)
    labels[2:6, 3:9, 4:16] = 3
    voxel_size, sigma = np.array([40, 10, 5]), 1e5
    found = local_shape_descriptors(labels, sigma, voxel_size)
    for voxel in ((2, 3, 4), (5, 8, 15), (3, 5, 7)):
        to_centre = (np.array([3.5, 5.5, 9.5]) - voxel) * voxel_size
        assert (found[(OFFSET, *voxel)] - 0.5) * 2 * sigma == pytest.approx(to_centre, abs=0.1)
        least = np.maximum((np.array([4, 6, 12]) ** 2 - 1) / 12 * voxel_size**2, 1e-3)
        assert found[(VARIANCE, *voxel)] * sigma**2 == pytest.approx(least, rel=1e-3)
        assert found[(PEARSON, *voxel)] == pytest.approx([0.5] * 3, abs=1e-4)


@pytest.mark.parametrize(("direction", "pearson"), [(1, 1.0), (-1, 0.0)])
def test_a_diagonal_rod_is_fully_correlated(direction, pearson):
    labels = np.eye(30, dtype=np.uint8)[::direction] * 200
    found = local_shape_descriptors(labels, 40, (8, 8))
    assert found[4, labels > 0] == pytest.approx(pearson, abs=1e-5)


@pytest.mark.parametrize("downsample", [1, 2, 3])
@pytest.mark.parametrize(("sigma", "voxel_size"), [(80, (8, 8, 8)), ((60, 30, 45), (20, 9, 9)), (3, (20, 9, 9))])
def test_equals_the_definition_on_lumps_of_any_shape(downsample, sigma, voxel_size):
    labels = lumps(np.random.default_rng(downsample), (13, 22, 17), 9)
    found = local_shape_descriptors(labels, sigma, voxel_size, downsample)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, definition(labels, sigma, voxel_size, downsample), atol=1e-5)


@pytest.mark.parametrize("downsample", [1, 2])
def test_equals_the_definition_where_labels_are_too_small_to_be_sampled(downsample):
    labels = np.random.default_rng(0).integers(0, 300, (9, 8, 7))
    found = local_shape_descriptors(labels, (30, 9, 13), (20, 9, 9), downsample)
    np.testing.assert_allclose(found, definition(labels, (30, 9, 13), (20, 9, 9), downsample), atol=1e-5)


@pytest.mark.parametrize("downsample", [1, 2, 3])
def test_two_dimensions_have_six_channels(downsample):
    labels = lumps(np.random.default_rng(1), (1, 40, 35), 7)[0]
    found = local_shape_descriptors(labels, (30, 20), (4, 6), downsample)
    assert found.shape == (6, 40, 35)
    np.testing.assert_allclose(found, definition(labels, (30, 20), (4, 6), downsample), atol=1e-5)


def test_equals_the_definition_on_neurons(fib25_slab):
    labels = zarr.open_array(fib25_slab / "volumes/labels/neuron_ids", mode="r")[20:61, 100:151, 30:85]
    found = local_shape_descriptors(labels, 80, (8, 8, 8), 2)
    np.testing.assert_allclose(found, definition(labels, 80, (8, 8, 8), 2), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "sigma", "voxel_size", "downsample"),
    [("zebrafinch", 120, (20, 9, 9), 2), ("fib25", 80, (8, 8, 8), 2), ("full", (60, 30, 40), (20, 9, 9), 1)],
)
def test_equals_what_lsds_computed(name, sigma, voxel_size, downsample):
    with np.load(PEERS) as peers:
        labels, volume, plane = peers["labels"], peers[f"lsds_{name}"], peers[f"lsds_plane_{name}"]
    found = local_shape_descriptors(labels, sigma, voxel_size, downsample)
    sigma = np.broadcast_to(sigma, 3)
    found_in_plane = local_shape_descriptors(labels[6], sigma[1:], voxel_size[1:], downsample)
    for ours, theirs, pearson in ((found, volume, [6, 7, 8]), (found_in_plane, plane, [4])):
        variances = ours[ours.ndim - 1 : 2 * ours.ndim - 2]
        floor = (variances <= 1.001e-3 / sigma[1 - ours.ndim :].reshape(-1, *(1,) * (ours.ndim - 1)) ** 2).any(0)
        np.testing.assert_allclose(np.delete(ours, pearson, 0), np.delete(theirs, pearson, 0), atol=1e-3)
        np.testing.assert_allclose(ours[pearson][:, ~floor], theirs[pearson][:, ~floor], atol=1e-3)
        np.testing.assert_allclose(ours[pearson][:, floor], theirs[pearson][:, floor], atol=2e-2)


def test_ids_are_names_and_nothing_else():
    labels = lumps(np.random.default_rng(2), (9, 16, 14), 6).astype(np.uint64)
    names = np.array([0, 2**64 - 1, 2**63, 2**63 - 1, 1, 12345678901234567890], np.uint64)
    small = local_shape_descriptors(labels, 60, (8, 8, 8), 2)
    assert np.array_equal(local_shape_descriptors(names[labels.astype(int)], 60, (8, 8, 8), 2), small)


def test_the_samples_of_a_batch_do_not_see_each_other():
    labels = torch.from_numpy(np.stack([lumps(np.random.default_rng(seed), (9, 12, 10), 5) for seed in (3, 4)]))
    arguments = 30, (8, 8, 8), 2, (slice(1, 8), slice(None), slice(3, 10))
    apart = torch.stack([local_shape_descriptors(sample, *arguments) for sample in labels])
    assert torch.equal(batch_descriptors(labels, *arguments), apart)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8, torch.uint64])
def test_torch_in_torch_out(dtype):
    labels = lumps(np.random.default_rng(3), (9, 16, 14), 6)
    found = local_shape_descriptors(torch.from_numpy(labels).to(dtype), 60, (8, 8, 8), 2)
    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.float32
    assert np.array_equal(found.numpy(), local_shape_descriptors(labels, 60, (8, 8, 8), 2))


def test_reads_any_memory_layout():
    labels = lumps(np.random.default_rng(4), (9, 16, 14), 6).astype(">u4")
    plain = local_shape_descriptors(labels.astype(np.int64), 60, (8, 8, 8))
    labels.setflags(write=False)
    assert np.array_equal(local_shape_descriptors(labels, 60, (8, 8, 8)), plain)
    assert np.array_equal(local_shape_descriptors(labels[:, ::-1], 60, (8, 8, 8)),
                          local_shape_descriptors(labels[:, ::-1].copy(), 60, (8, 8, 8)))  # fmt: skip
    turned = torch.from_numpy(labels.astype(np.int32)).permute(2, 0, 1)
    assert torch.equal(
        local_shape_descriptors(turned, 60, (8, 8, 8)), local_shape_descriptors(turned.contiguous(), 60, (8, 8, 8))
    )


@pytest.mark.parametrize("tile", [5, 8])
def test_tiles_leave_no_trace(monkeypatch, tile):
    labels = lumps(np.random.default_rng(5), (21, 30, 26), 5)
    whole = local_shape_descriptors(labels, 60, (8, 8, 8), 2)
    monkeypatch.setattr(emsuite.targets.lsds, "_TILE", {3: tile})
    np.testing.assert_allclose(local_shape_descriptors(labels, 60, (8, 8, 8), 2), whole, atol=1e-6)


@pytest.mark.parametrize("sigma", [40, 1])  # 1 nm: the Gaussian reaches no other voxel
@pytest.mark.parametrize("downsample", [1, 2, 3])
def test_part_of_a_volume_is_described_as_in_the_whole(downsample, sigma):
    labels = lumps(np.random.default_rng(6), (30, 41, 37), 8)
    labels[labels == 4] = 0
    labels[5::7, 17, 1::5] = np.arange(100, 132).reshape(4, 8)  # voxels alone, most of them without a sample
    part = (slice(5, 20), slice(17, 18), slice(0, None))
    whole = local_shape_descriptors(labels, sigma, (8, 8, 8), downsample)
    found = local_shape_descriptors(labels, sigma, (8, 8, 8), downsample, within=part)
    np.testing.assert_allclose(found, whole[:, *part], atol=1e-6)


def test_background_alone_is_zero_and_nothing_is_nothing():
    assert not local_shape_descriptors(np.zeros((5, 6, 7), np.uint64), 80, (8, 8, 8), 2).any()
    assert local_shape_descriptors(np.zeros((0, 6, 7), np.uint64), 80, (8, 8, 8), 2).shape == (10, 0, 6, 7)
    ones = np.ones((5, 6, 7), np.uint64)
    assert local_shape_descriptors(ones, 80, (8, 8, 8), 2, within=[slice(3, 3)] * 3).shape == (10, 0, 0, 0)


def test_work_grows_with_the_volume_and_not_with_its_labels(monkeypatch):
    group_boxes, work = emsuite.targets.lsds.batch_boxes, []

    def watched(*boxes):
        groups = group_boxes(*boxes)
        work.extend(group.products for group in groups)
        return groups

    monkeypatch.setattr(emsuite.targets.lsds, "batch_boxes", watched)
    per_voxel = []
    for edge in (5, 10):  # 125 and 1000 labels of 10 voxels' edge
        work.clear()
        labels = np.arange(1, edge**3 + 1).reshape(edge, edge, edge).repeat(10, 0).repeat(10, 1).repeat(10, 2)
        local_shape_descriptors(labels, 40, (8, 8, 8), 2)
        per_voxel.append(sum(work) / labels.size)
    assert per_voxel[1] < 1.3 * per_voxel[0]


@pytest.mark.parametrize(
    ("labels", "changes", "said"),
    [
        (np.zeros((4, 4, 4), np.float32), {}, "labels: float32, expected integers"),
        (torch.zeros(4, 4, 4), {}, "labels: torch.float32, expected integers"),
        (np.zeros((1, 4, 4, 4), np.int64), {}, "labels: 4 axes"),
        (np.zeros((4, 4, 4), np.int64), {"sigma": 0}, "sigma 0: expected nm above 0"),
        (np.zeros((4, 4, 4), np.int64), {"sigma": (80, 80)}, "one value or 3"),
        (np.zeros((4, 4, 4), np.int64), {"sigma": float("nan")}, "sigma nan"),
        (np.zeros((4, 4, 4), np.int64), {"voxel_size": (8, 8)}, "expected 3 values in nm"),
        (np.zeros((4, 4, 4), np.int64), {"voxel_size": 8}, "voxel size 8: expected 3 values in nm"),
        (np.zeros((4, 4, 4), np.int64), {"voxel_size": (8, 8, -8)}, "expected 3 values in nm above 0"),
        (np.zeros((4, 4, 4), np.int64), {"downsample": 0}, "downsample 0"),
        (np.zeros((4, 4, 4), np.int64), {"downsample": 1.5}, "downsample 1.5"),
        (np.zeros((4, 4, 4), np.int64), {"within": [slice(0, 2)]}, "within: 1 slices, expected 3"),
    ],
)
def test_bad_input_is_named(labels, changes, said):
    with pytest.raises(BadInput, match=said):
        local_shape_descriptors(labels, **({"sigma": 80, "voxel_size": (8, 8, 8)} | changes))


def test_each_tile_is_computed_on_one_core_and_the_bytes_stay(monkeypatch):
    """Where a short operation is shared out, its threads wait for each other; beside a busy program, for long."""
    labels = np.random.default_rng(0).integers(0, 4, (110, 20, 60)).repeat(2, axis=2)
    compute, cores = emsuite.targets.lsds.moments, set()

    def noted(*given):
        cores.add(torch.get_num_threads())
        return compute(*given)

    monkeypatch.setattr(emsuite.targets.lsds, "moments", noted)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append(local_shape_descriptors(labels, 8, (1, 1, 1)).tobytes())
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert cores == {1}
    assert len(set(found)) == 1
