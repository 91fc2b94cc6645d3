"""MALIS: the weight of an affinity is the number of voxel pairs that it decides about.

Two voxels are joined by the best path between them, and a path is as good as its weakest edge: their maximin edge.
All maximin edges lie on the maximum spanning tree of the affinity graph. Kruskal's algorithm meets each one as the
edge that first joins two components, and there it decides about all pairs between them.

    a --.9-- b --.4-- c --.8-- d        the edge b-c decides about a-c, a-d, b-c and b-d

Source: Turaga et al. 2009, "Maximin affinity learning of image segmentation"; the two constrained passes: Funke et
al. 2018, "Large scale image segmentation with structured loss based deep learning for connectome reconstruction",
as in https://github.com/funkelab/malis.
"""

from collections.abc import Sequence

import numba
import numpy as np
import torch

from emsuite.common.arrays import Index


def malis_loss(
    affinities: torch.Tensor,
    target: torch.Tensor,
    labels: torch.Tensor,
    neighborhood: Sequence[Sequence[int]],
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return sum(w (affinities - target)^2) of one sample, a scalar of at most 2, with w from `malis_weights`.

    The arguments are those of `malis_weights`, as tensors on any device. The weights are computed on the CPU. The
    gradient treats them as constants.
    """
    predicted = affinities.detach().float()
    inside = None if mask is None else mask.cpu().numpy()
    weights = malis_weights(predicted.cpu().numpy(), target.cpu().numpy(), labels.cpu().numpy(), neighborhood, inside)
    return ((affinities - target).square() * torch.from_numpy(weights).to(affinities.device)).sum()


def malis_weights(
    affinities: np.ndarray,
    target: np.ndarray,
    labels: np.ndarray,
    neighborhood: Sequence[Sequence[int]],
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """Return the weight of each affinity: the share of voxel pairs that it decides about, over two constrained passes.

    The positive pass counts pairs of one label, with all affinities that should be 0 set to 0. The negative pass counts
    pairs of two labels, with all affinities that should be 1 set to 1. A masked-out affinity keeps its prediction in
    both passes and gets no weight. The positive (negative) pass gives weight to the affinities that should be 1 (0);
    the weights of a pass sum to 1 if there are any. Pairs are counted in float64: the original's 32-bit counts overflow
    beyond some 65,000 voxels of a label.

    Args:
        affinities: the prediction in [0, 1], (C, Z, Y, X) or (C, Y, X), one channel per offset.
        target: {0, 1}, the same shape.
        labels: integers (Z, Y, X) or (Y, X); 0 is background and part of no pair.
        neighborhood: the offsets in voxels.
        mask: the same shape as `affinities`, 0 where the target is unknown; None: all targets are known.

    Returns:
        float32, the same shape as `affinities`.
    """
    inside = np.ones(target.shape, bool) if mask is None else mask != 0
    numbers = np.where(labels == 0, 0, np.unique(labels, return_inverse=True)[1].reshape(labels.shape) + 1)
    first, second, entry = _edges(labels.shape, neighborhood)
    strength, joined, counts = (array.reshape(-1)[entry] for array in (affinities, target != 0, inside))
    weights = np.zeros(target.size)
    for positive in (True, False):
        settled = counts & (joined != positive)
        order = np.flatnonzero(~settled)
        order = order[np.argsort(-strength[order], kind="stable")]
        if not positive:  # settled edges are the strongest here; in the positive pass they are 0 and decide nothing
            order = np.concatenate([np.flatnonzero(settled), order])
        pairs = np.zeros(len(entry))
        pairs[order] = _pairs_decided(numbers.reshape(-1), first[order], second[order], positive)
        pairs[~counts | settled] = 0
        weights[entry] += pairs / (pairs.sum() or 1)
    return weights.astype(np.float32).reshape(target.shape)


def _edges(shape: Sequence[int], neighborhood: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for each edge with both ends inside, its two voxels and its index in the flattened affinities."""
    voxels = np.arange(np.prod(shape)).reshape(shape)
    ends = [(voxels[here].reshape(-1), voxels[there].reshape(-1))
            for here, there in (partners(offset, shape) for offset in neighborhood)]  # fmt: skip
    first, second = (np.concatenate(side) for side in zip(*ends, strict=True))
    entry = np.concatenate([channel * voxels.size + here for channel, (here, _) in enumerate(ends)])
    return first, second, entry


@numba.njit(cache=True)
def _pairs_decided(numbers: np.ndarray, first: np.ndarray, second: np.ndarray, same: bool) -> np.ndarray:
    """Return the number of pairs that each edge is the first to join, edges taken in order.

    Pairs are those of voxels with one number if `same`, else of voxels with two numbers. A component keeps a list of
    its numbers in ascending order, each with its count of voxels. The nodes of the list are the voxels themselves.
    Number 0 is in no list.
    """
    parent = np.arange(len(numbers))
    size = np.ones(len(numbers), np.int64)
    carried = np.ones(len(numbers), np.float64)
    following = np.full(len(numbers), -1)
    head = np.where(numbers > 0, np.arange(len(numbers)), -1)
    total = np.where(numbers > 0, 1.0, 0.0)
    decided = np.zeros(len(first))
    for edge in range(len(first)):
        one, other = _root(parent, first[edge]), _root(parent, second[edge])
        if one == other:
            continue
        if size[one] < size[other]:
            one, other = other, one
        parent[other] = one
        size[one] += size[other]
        head[one], alike = _merge(head[one], head[other], numbers, carried, following)
        decided[edge] = alike if same else total[one] * total[other] - alike
        total[one] += total[other]
    return decided


@numba.njit(cache=True)
def _root(parent: np.ndarray, voxel: int) -> int:
    while parent[voxel] != voxel:
        parent[voxel] = parent[parent[voxel]]
        voxel = parent[voxel]
    return voxel


@numba.njit(cache=True)
def _merge(one: int, other: int, numbers: np.ndarray, carried: np.ndarray, following: np.ndarray) -> tuple[int, float]:
    """Merge two lists; return the head of the merged list, and the pairs of one number between the two."""
    head, tail, alike = -1, -1, 0.0
    while one >= 0 and other >= 0:
        if numbers[one] == numbers[other]:
            alike += carried[one] * carried[other]
            carried[one] += carried[other]
            other = following[other]
            continue
        if numbers[other] < numbers[one]:
            one, other = other, one
        if tail < 0:
            head = one
        else:
            following[tail] = one
        tail = one
        one = following[one]
    rest = one if one >= 0 else other
    if tail < 0:
        return rest, alike
    following[tail] = rest
    return head, alike


def partners(offset: Sequence[int], shape: Sequence[int]) -> tuple[Index, Index]:
    """Return the index of all voxels with a partner at `offset` inside `shape`, and the index of the partners."""
    here = tuple(
        slice(max(0, -step), max(0, length - max(0, step))) for step, length in zip(offset, shape, strict=True)
    )
    there = tuple(
        slice(max(0, step), max(0, length - max(0, -step))) for step, length in zip(offset, shape, strict=True)
    )
    return (..., *here), (..., *there)
