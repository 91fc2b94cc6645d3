"""What a batch of labels means for each head of a network: targets, and weights of the voxels that count.

Order, as the originals have it: grow the boundary (where labels are known), renumber components, then LSDs and
affinities from the result.
Source: the training pipelines of funkelab/lsd_nm_experiments.
"""

import math

import torch
from torch import Tensor

from emsuite.common.arrays import Shape, as_numbers, stacked
from emsuite.config.network import NetworkConfig
from emsuite.losses.registry import Target
from emsuite.targets.affinities import affinities_mask, affinity_targets
from emsuite.targets.boundary import connected_components, grow_boundary
from emsuite.targets.class_balance import balance_weights
from emsuite.targets.heads import AffinitiesHead, LsdsHead
from emsuite.targets.lsds import local_shape_descriptors

Box = tuple[slice, ...]


def label_context(config: NetworkConfig) -> tuple[Shape, Shape]:
    """Voxels of labels that the targets need before and behind the output, z y x.

    LSDs need three sigma around each voxel, affinities the voxels at their offsets.
    """
    before, behind = [0, 0, 0], [0, 0, 0]
    for head in config.heads.values():
        for axis in range(3):
            if head.target == "lsds":
                reach = math.ceil(3 * head.sigma / config.voxel_size[axis])
                low, high = reach, reach
            else:
                offsets = [offset[axis] for offset in head.neighborhood]
                low, high = max(0, -min(offsets)), max(0, *offsets)
            before[axis], behind[axis] = max(before[axis], low), max(behind[axis], high)
    return tuple(before), tuple(behind)


def make_targets(config: NetworkConfig, labels: Tensor, mask: Tensor, iteration: int) -> dict[str, Target]:
    """Targets per head from `(B, Z, Y, X)` int32 labels and uint8 mask, both with `label_context` around the output."""
    # without a mask there is less to do; a GPU would have to be waited for to know
    known = None if mask.device.type == "cpu" and mask.all() else mask
    growth, renumber = config.training.grow_boundary, config.training.renumber_components_from
    before, behind = label_context(config)
    inner = tuple(slice(b, n - e) for b, e, n in zip(before, behind, labels.shape[1:], strict=True))
    if growth is not None:
        labels = grow_boundary(labels, growth.steps, growth.in_plane, known)
    if renumber is not None and iteration > renumber:
        labels = torch.stack([connected_components(sample) for sample in labels])
    found = {}
    for name, head in config.heads.items():
        if head.target == "lsds":
            found[name] = _lsds(head, labels, known, inner, config.voxel_size)
        else:
            found[name] = _affinities(head.at(iteration), labels, known, inner)
    return found


def _lsds(head: LsdsHead, labels: Tensor, mask: Tensor | None, inner: Box, voxel_size: Shape) -> Target:
    values = stacked([local_shape_descriptors(each, head.sigma, voxel_size, head.downsample, inner) for each in labels])
    labels = labels[:, *inner]
    inside = torch.ones_like(labels, dtype=torch.bool) if mask is None else mask[:, *inner] != 0
    counts = {"mask": inside, "labelled": labels != 0, "labelled_or_unmasked": (labels != 0) | ~inside}[head.weights]
    return Target(values, as_numbers(counts)[:, None].expand(values.shape), labels)


def _affinities(head: AffinitiesHead, labels: Tensor, mask: Tensor | None, inner: Box) -> Target:
    values = affinity_targets(labels, head.neighborhood, inner)
    counts = None if mask is None else affinities_mask(mask, head.neighborhood, inner)
    if head.weights == "balance":
        inside = [None] * len(values) if counts is None else counts.view(torch.bool)
        weights = stacked([balance_weights(*pair) for pair in zip(values, inside, strict=True)])
    else:
        weights = torch.ones_like(values) if counts is None else counts.float()
    return Target(values, weights, labels[:, *inner], head.neighborhood)
