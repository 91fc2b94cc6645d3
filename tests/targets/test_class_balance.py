"""Balancing: by hand, and as gunpowder did it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from emsuite.common.errors import BadInput
from emsuite.targets.class_balance import balance_weights, weights_with_torch

PEERS = Path(__file__).resolve().parents[1] / "fixtures" / "peers_targets.npz"


def test_both_values_weigh_the_same_in_all():
    targets = np.array([1, 0, 0, 0], np.uint8)
    weights = balance_weights(targets)
    assert weights.dtype == np.float32
    assert weights.tolist() == pytest.approx([2, 2 / 3, 2 / 3, 2 / 3])
    assert weights[targets == 1].sum() == pytest.approx(weights[targets == 0].sum())


def test_shares_are_clipped_on_both_sides():
    targets = np.zeros(1000, np.uint8)
    targets[0] = 1
    weights = balance_weights(targets)
    assert weights[:2].tolist() == pytest.approx([0.5 / 0.05, 0.5 / 0.95])
    assert balance_weights(targets, clip=(0.2, 0.5))[:2].tolist() == pytest.approx([2.5, 1])


def test_what_is_masked_out_has_no_weight_and_no_say():
    targets = np.array([[1, 1, 0, 0], [1, 1, 1, 1]], np.uint8)
    mask = np.array([[1, 1, 1, 1], [0, 0, 0, 0]], np.uint8)
    assert balance_weights(targets, mask).tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]
    assert not balance_weights(targets, np.zeros_like(mask)).any()


@pytest.mark.parametrize("value", [0, 1])
def test_one_value_alone(value):
    assert balance_weights(np.full(5, value)).tolist() == pytest.approx([0.5 / 0.95] * 5)


@pytest.mark.parametrize("name", ["near", "far"])
def test_equals_gunpowder_bit_for_bit(name):
    with np.load(PEERS) as peers:
        targets, mask, expected = (peers[f"{what}_{name}"] for what in ("affinities", "affinities_mask", "scales"))
    assert np.array_equal(balance_weights(targets, mask), expected)
    as_trained = balance_weights(torch.from_numpy(targets).float(), torch.from_numpy(mask).float())
    assert np.array_equal(as_trained.numpy(), expected)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(BadInput, match=r"targets \(3,\) and mask \(4,\)"):
        balance_weights(np.ones(3), np.ones(4))


@pytest.mark.parametrize("together", [8, 1 << 24])
def test_the_loops_and_torch_say_the_same_however_many_there_are(monkeypatch, together):
    random = np.random.default_rng(0)
    targets, mask = (random.random((3, 5, 7)) < share for share in (0.3, 0.8))
    expected = balance_weights(targets, mask)
    given = targets.copy(), mask.copy()
    monkeypatch.setattr("emsuite.targets.class_balance._EXACT", together)
    tensors = torch.from_numpy(targets), torch.from_numpy(mask)
    assert np.array_equal(weights_with_torch(*tensors, (0.05, 0.95)).numpy(), expected)
    assert np.array_equal(balance_weights(*tensors).numpy(), expected)
    assert np.array_equal(targets, given[0])
    assert np.array_equal(mask, given[1])


def test_no_mask_counts_all_as_a_full_one_does():
    targets = torch.from_numpy(np.random.default_rng(2).random((3, 5, 7)) < 0.3)
    full = torch.ones_like(targets)
    assert torch.equal(balance_weights(targets), balance_weights(targets, full))
    assert torch.equal(weights_with_torch(targets, None, (0.05, 0.95)), balance_weights(targets, full))


def test_axes_in_another_order_weigh_the_same():
    random = np.random.default_rng(1)
    targets, mask = (random.random((4, 6, 8)) < share for share in (0.3, 0.8))
    swapped = balance_weights(targets.transpose(2, 0, 1), mask.transpose(2, 0, 1))
    assert np.array_equal(swapped, balance_weights(targets, mask).transpose(2, 0, 1))
