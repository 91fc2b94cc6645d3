"""MALIS: by hand on chains of voxels, then against all pairs of small random graphs by brute force."""

import numpy as np
import pytest
import torch

from emsuite.losses.malis import malis_loss, malis_weights
from emsuite.targets.affinities import affinities

CHAIN = [[0, 1]]
NEAR = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]
FAR = [*NEAR, [0, -2, 1], [0, 0, 3]]


def chain(labels, strengths, mask=None):
    """Weights of the affinities between neighbours in a row of voxels, one for each voxel but the last."""
    labels = np.array([labels])
    predicted = np.zeros((1, 1, labels.size), np.float32)
    predicted[0, 0, :-1] = strengths
    known = None if mask is None else np.array([[[*mask, 1]]])
    return malis_weights(predicted, affinities(labels, CHAIN), labels, CHAIN, known)[0, 0, :-1]


def by_brute_force(predicted, target, labels, neighborhood, mask):
    """Of every pair of voxels find the maximin strength (Floyd-Warshall), and the edge that has it."""
    count, edges = labels.size, []
    voxels = np.arange(count).reshape(labels.shape)
    for channel, offset in enumerate(neighborhood):
        for place in np.ndindex(labels.shape):
            other = tuple(np.add(place, offset))
            if all(0 <= p < n for p, n in zip(other, labels.shape, strict=True)):
                edges.append(((channel, *place), voxels[place], voxels[other]))
    weights = np.zeros(target.shape)
    for positive in (1, 0):
        best = np.full((count, count), -1.0)
        settled = (mask == 1) & (target != positive)
        strength = np.where(settled, 1 - positive, predicted)
        for edge, u, v in edges:
            best[u, v] = best[v, u] = max(best[u, v], strength[edge])
        for k in range(count):
            best = np.maximum(best, np.minimum(best[:, k, None], best[k]))
        owner = {strength[edge]: edge for edge, _, _ in edges if not settled[edge]}
        part = np.zeros(target.shape)
        ids = labels.ravel()
        for u in range(count):
            for v in range(u):
                counts = ids[u] and ids[v] and (ids[u] == ids[v]) == positive
                if counts and best[u, v] in owner and mask[owner[best[u, v]]]:
                    part[owner[best[u, v]]] += 1
        weights += part / max(1, part.sum())
    return weights


def test_the_weakest_edge_decides_about_all_pairs_across():
    assert chain([1, 1, 1, 1], [0.9, 0.4, 0.8]) == pytest.approx(np.array([1, 4, 1]) / 6)


def test_two_labels_are_told_apart_by_the_edge_between():
    assert chain([1, 1, 2, 2], [0.9, 0.7, 0.2]) == pytest.approx([0.5, 1, 0.5])


def test_a_path_across_background_is_as_strong_as_its_weakest_edge():
    assert chain([1, 0, 2], [0.9, 0.7]).tolist() == [0, 1]
    assert chain([1, 0, 0, 1], [0.9, 0.7, 0.8]).tolist() == [0, 0, 0]  # one label: nothing to keep apart, or to join


def test_a_larger_neuron_lost_costs_more():
    weights = chain([1, 1, 1, 0, 2, 2, 2, 2, 2], [1, 1, 0.6, 0.5, 1, 1, 1, 1])
    assert weights[3] == pytest.approx(1)
    assert chain([1, 1, 0, 2, 0, 3, 3, 3], [1, 0.9, 0.8, 0.5, 0.6, 1, 1])[[1, 2, 3, 4]] == pytest.approx(
        np.array([0, 2, 2 * 3 + 1 * 3, 0]) / 11
    )


def test_a_masked_edge_has_no_weight_but_its_predicted_strength_counts():
    # the edge masked out is the weakest: it decides about the pairs across, whose weight is lost
    assert chain([1, 1, 1, 1], [0.9, 0.4, 0.8], [1, 0, 1]) == pytest.approx([0.5, 0, 0.5])
    # stronger than both others: these decide about the pairs across
    assert chain([1, 1, 1, 1], [0.8, 0.9, 0.4], [1, 0, 1]) == pytest.approx([2 / 5, 0, 3 / 5])
    # between two labels it is not cut: in the positive pass it may join the same label, here there is none
    assert chain([1, 1, 2, 2], [0.9, 0.7, 0.2], [1, 0, 1]) == pytest.approx([0.5, 0, 0.5])


def test_nothing_labelled_has_no_weight():
    assert not chain([0, 0, 0], [0.3, 0.5]).any()
    assert not chain([1, 1, 2], [0.3, 0.5], [0, 0]).any()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("neighborhood", [NEAR, FAR])
def test_equals_brute_force_over_all_pairs(seed, neighborhood):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (3, 4, 5)) if seed % 2 else rng.integers(0, 4, (2, 2, 2)).repeat(2, 1).repeat(2, 2)
    target = affinities(labels, neighborhood)
    predicted = rng.permutation(target.size).reshape(target.shape).astype(np.float32)
    predicted = (predicted + 1) / (target.size + 2)  # all different, none 0 or 1
    mask = (rng.random(target.shape) < (0.7 if seed % 3 else 1)).astype(np.uint8)
    expected = by_brute_force(predicted, target, labels, neighborhood, mask)
    assert expected.any()
    found = malis_weights(predicted, target, labels, neighborhood, mask)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    if mask.all():
        np.testing.assert_array_equal(found, malis_weights(predicted, target, labels, neighborhood))


def test_pairs_are_counted_beyond_32_bits():
    half = 60_000
    weights = chain(np.ones(2 * half, int), np.where(np.arange(2 * half - 1) == half - 1, 0.1, 0.9))
    assert weights[half - 1] == pytest.approx(half / (2 * half - 1))


def test_ids_are_names_and_nothing_else():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, (3, 4, 5))
    target, predicted = affinities(labels, NEAR), rng.random((3, 3, 4, 5), np.float32)
    names = np.array([0, 2**64 - 1, 17, 2**63], np.uint64)[labels]
    expected = malis_weights(predicted, target, labels, NEAR)
    np.testing.assert_allclose(malis_weights(predicted, target, names, NEAR), expected, rtol=1e-6)
    negative = torch.from_numpy(names.view(np.int64))
    loss = malis_loss(torch.from_numpy(predicted), torch.from_numpy(target), negative, NEAR)
    assert float(loss) == pytest.approx(float((expected * (predicted - target) ** 2).sum()))


def test_the_gradient_takes_the_weights_as_given():
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, (3, 4, 5))
    target = torch.from_numpy(affinities(labels, NEAR)).float()
    predicted = torch.from_numpy(rng.random(target.shape, np.float32)).requires_grad_()
    mask = torch.from_numpy(rng.random(target.shape) < 0.8)
    loss = malis_loss(predicted, target, torch.from_numpy(labels), NEAR, mask)
    loss.backward()
    weights = torch.from_numpy(malis_weights(predicted.detach().numpy(), target.numpy(), labels, NEAR, mask.numpy()))
    assert weights.sum() == pytest.approx(2)
    assert torch.allclose(loss, (weights * (predicted - target) ** 2).sum())
    assert torch.allclose(predicted.grad, 2 * weights * (predicted.detach() - target))
    assert not predicted.grad[~mask].any()


def test_descending_the_loss_repairs_a_merge():
    labels = np.array([[1, 1, 1, 2, 2, 2]]).repeat(4, 0)
    target = torch.from_numpy(affinities(labels, [[-1, 0], [0, -1]])).float()
    logits = torch.full_like(target, 2.0).requires_grad_()  # all joined
    for _ in range(300):
        loss = malis_loss(logits.sigmoid(), target, torch.from_numpy(labels), [[-1, 0], [0, -1]])
        loss.backward()
        with torch.no_grad():
            logits -= 5 * logits.grad
            logits.grad = None
    across = logits.sigmoid()[1, :, 3]
    assert across.max() < 0.5
    assert loss < 0.3
