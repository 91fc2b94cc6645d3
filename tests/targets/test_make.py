"""Targets of a batch of labels."""

import numpy as np
import pytest
import torch

from builders import ROOT
from emsuite.config.network import load_network

NETWORKS = ROOT / "02_train"
PEERS = ROOT / "tests/fixtures/peers_targets.npz"
WITH_MASK = ["heads.affs.masked=true", "training.grow_boundary.masked=true"]


@pytest.mark.parametrize("network", ["fib25/small", "zebrafinch/mtlsd"])
def test_a_mask_that_is_set_everywhere_is_as_one_that_misses_what_nothing_depends_on(network):
    config = load_network(NETWORKS / network)
    maker = config.target_maker
    before, behind = maker.label_context
    shape = [b + 12 + e for b, e in zip(before, behind, strict=True)]
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 9, (1, *(n // 5 + 1 for n in shape)), generator=generator)
    labels = coarse.repeat_interleave(5, 1).repeat_interleave(5, 2).repeat_interleave(5, 3)
    labels = labels[:, : shape[0], : shape[1], : shape[2]].int().contiguous()
    everywhere = torch.ones(labels.shape, dtype=torch.uint8)
    corner = everywhere.clone()
    corner[0, 0, 0, 0] = 0
    expected = maker(labels, corner, 1)
    for name, target in maker(labels, everywhere, 1).items():
        assert torch.equal(target.values, expected[name].values)
        assert torch.equal(target.weights, expected[name].weights)
        assert torch.equal(target.labels, expected[name].labels)
        assert target.weights.any()
        assert target.values.any()


@pytest.mark.parametrize("masked", [False, True])
def test_the_targets_of_the_cremi_network_are_the_tutorials(masked):
    """Grown by 3 within sections, affinities, balanced over all channels: as gunpowder's nodes, bit for bit."""
    config = load_network(NETWORKS / "cremi/boundaries", WITH_MASK if masked else [])
    with np.load(PEERS) as peers:
        labels, mask = (torch.from_numpy(peers[f"tutorial_{name}"].astype(np.int64)) for name in ("labels", "mask"))
        name = "masked" if masked else "tutorial"
        affinities, scales = peers[f"{name}_affinities"], peers[f"{name}_scales"]
    target = config.target_maker(labels[None].int(), mask[None].byte(), 1)["affs"]
    assert 0.02 < affinities.mean() < 0.9
    assert (scales == 0).any() == masked
    assert np.array_equal(target.values[0].numpy(), affinities)
    assert np.array_equal(target.weights[0].numpy(), scales)
