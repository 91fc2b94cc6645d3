"""Affinities: by hand, voxel by voxel, and as gunpowder computed them."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from emsuite.common.errors import BadInput
from emsuite.losses.malis import partners
from emsuite.targets.affinities import affinities, affinities_mask, affinity_targets

PEERS = Path(__file__).resolve().parents[1] / "fixtures" / "peers_targets.npz"


def test_a_voxel_is_related_to_the_voxel_at_the_offset():
    labels = np.array([[1, 1, 0, 2, 2]], np.uint64)
    assert affinities(labels, [[0, -1], [0, 1], [0, 2]]).tolist() == [
        [[0, 1, 0, 0, 1]],
        [[1, 0, 0, 1, 0]],
        [[0, 0, 0, 0, 0]],
    ]


@pytest.mark.parametrize("offset", [(-1, 0, 0), (0, 2, -1), (3, -4, 5), (0, 0, 0)])
def test_equals_a_loop_over_voxels(offset):
    labels = np.random.default_rng(0).integers(0, 3, (5, 6, 7))
    found = affinities(labels, [offset])[0]
    for place in itertools.product(*map(range, labels.shape)):
        other = tuple(np.add(place, offset))
        inside = all(0 <= p < n for p, n in zip(other, labels.shape, strict=True))
        assert found[place] == (inside and labels[place] != 0 and labels[place] == labels[other])


@pytest.mark.parametrize("name", ["near", "far"])
def test_equals_gunpowder_bit_for_bit(name):
    with np.load(PEERS) as peers:
        labels, mask, neighborhood = peers["labels"], peers["mask"], peers[f"neighborhood_{name}"]
        expected, expected_mask, begin = (
            peers[f"{what}_{name}"] for what in ("affinities", "affinities_mask", "begin")
        )
    kept = (slice(None), *(slice(b, b + n) for b, n in zip(begin, expected.shape[1:], strict=True)))
    assert np.array_equal(affinities(labels, neighborhood)[kept], expected)
    assert np.array_equal(affinities_mask(mask, neighborhood)[kept], expected_mask)
    assert expected.any()
    assert not expected.all()


def test_offsets_beyond_the_array_relate_nothing():
    labels = np.ones((3, 4, 5), np.int32)
    assert not affinities(labels, [[-3, 0, 0], [0, 7, 0], [0, 0, -100]]).any()


def test_ids_beyond_32_bits_stay_apart():
    labels = np.array([[2**32, 0, 2**33, 2**64 - 1, 2**64 - 1]], np.uint64)
    assert affinities(labels, [[0, -1]]).tolist() == [[[0, 0, 0, 0, 1]]]


def test_masked_in_is_anything_but_0():
    assert affinities_mask(np.array([[0, 1, 255, 7]], np.uint8), [[0, -1]]).tolist() == [[[0, 0, 1, 1]]]


def test_type_device_and_leading_axes_are_kept():
    labels = torch.from_numpy(np.random.default_rng(1).integers(0, 3, (2, 5, 6, 7)))
    found = affinities(labels, [[-1, 0, 0], [0, 1, 0]])
    assert (found.shape, found.dtype, found.device) == ((2, 2, 5, 6, 7), torch.uint8, labels.device)
    for sample, expected in zip(found.numpy(), labels.numpy(), strict=True):
        assert np.array_equal(sample, affinities(expected, [[-1, 0, 0], [0, 1, 0]]))
    assert affinities(labels.numpy(), [[-1, 0, 0]]).dtype == np.uint8


def test_partners_are_where_the_offset_points():
    voxels = np.arange(20).reshape(4, 5)
    here, there = partners((1, -2), voxels.shape)
    assert np.array_equal(voxels[here] + 1 * 5 - 2, voxels[there])


@pytest.mark.parametrize("neighborhood", [[], [[1]], [[1, 0], [0, 1, 0]], [[1, 0, 0, 0]]])
def test_offsets_must_suit_the_labels(neighborhood):
    with pytest.raises(BadInput, match="neighborhood"):
        affinities(np.ones((3, 3, 3), np.int64), neighborhood)
    with pytest.raises(BadInput, match="for labels of 2 axes"):
        affinities(np.ones((3, 3), np.int64), [[-1, 0, 0]])


def test_labels_must_be_integers():
    with pytest.raises(BadInput, match="float64, expected integers"):
        affinities(np.ones((3, 3, 3)), [[-1, 0, 0]])


@pytest.mark.parametrize("offset", [[[-1, 0, 0], [0, -1, 0], [0, 0, -1]], [[2, -1, 3], [-2, 2, -3], [0, 0, 0]]])
@pytest.mark.parametrize("margin", [3, 1])
def test_what_networks_learn_are_affinities_as_numbers(offset, margin):
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 3, (2, 9, 10, 11), generator=generator, dtype=torch.int32)
    within = [slice(margin, length - margin) for length in labels.shape[1:]]  # of 1, some partners lie outside
    found = affinity_targets(labels, offset, within)
    assert found.dtype == torch.float32
    assert torch.equal(found, affinities(labels, offset, within).float())
    assert 0 < found.mean() < 1
    turned = labels.permute(0, 3, 2, 1)
    inner = [slice(margin, length - margin) for length in turned.shape[1:]]
    assert torch.equal(affinity_targets(turned, offset, inner), affinities(turned, offset, inner).float())


def test_each_channel_is_computed_on_one_core_and_the_bytes_stay(monkeypatch):
    labels = np.random.default_rng(0).integers(0, 3, (9, 10, 11))
    compare, cores = torch.eq, set()

    def noted(*given, **named):
        cores.add(torch.get_num_threads())
        return compare(*given, **named)

    monkeypatch.setattr(torch, "eq", noted)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append(affinities(labels, [[-1, 0, 0], [0, -2, 0], [0, 0, 3], [1, 1, 1]]).tobytes())
    torch.set_num_threads(before)
    assert cores == {1}
    assert len(set(found)) == 1
