"""What a batch of labels means for each head of a network: targets, and weights of the voxels that count.

Order, as the originals have it: grow the boundary (where labels are known), renumber components, then LSDs and
affinities from the result.
Source: the training pipelines of funkelab/lsd_nm_experiments.
"""

import math

import torch
from torch import Tensor

from emsuite.affinities import affinities, affinities_mask
from emsuite.balance import balance_weights
from emsuite.boundary import connected_components, grow_boundary
from emsuite.heads import AffinitiesHead, LsdsHead
from emsuite.losses import Target
from emsuite.lsds import local_shape_descriptors
from emsuite.network_config import NetworkConfig
from emsuite.unet import Shape

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
    """Targets per head from `(B, Z, Y, X)` int64 labels and uint8 mask, both with `label_context` around the output."""
    growth, renumber = config.training.grow_boundary, config.training.renumber_components_from
    before, behind = label_context(config)
    inner = tuple(slice(b, n - e) for b, e, n in zip(before, behind, labels.shape[1:], strict=True))
    samples: dict[str, list[Target]] = {name: [] for name in config.heads}
    for sample, sample_mask in zip(labels, mask, strict=True):
        if growth is not None:
            sample = grow_boundary(sample, growth.steps, growth.in_plane, sample_mask)
        if renumber is not None and iteration > renumber:
            sample = connected_components(sample)
        for name, head in config.heads.items():
            if head.target == "lsds":
                samples[name].append(_lsds(head, sample, sample_mask, inner, config.voxel_size))
            else:
                samples[name].append(_affinities(head.at(iteration), sample, sample_mask, inner))
    return {name: _stack(made) for name, made in samples.items()}


def _lsds(head: LsdsHead, labels: Tensor, mask: Tensor, inner: Box, voxel_size: Shape) -> Target:
    values = local_shape_descriptors(labels, head.sigma, voxel_size, head.downsample, within=inner)
    labels, mask = labels[inner], mask[inner] != 0
    counts = {"mask": mask, "labelled": labels != 0, "labelled_or_unmasked": (labels != 0) | ~mask}[head.weights]
    return Target(values, counts.float().expand(values.shape), labels)


def _affinities(head: AffinitiesHead, labels: Tensor, mask: Tensor, inner: Box) -> Target:
    values = affinities(labels, head.neighborhood)[:, *inner].float()
    counts = affinities_mask(mask, head.neighborhood)[:, *inner].float()
    weights = balance_weights(values, counts) if head.weights == "balance" else counts
    return Target(values, weights, labels[inner], head.neighborhood)


def _stack(made: list[Target]) -> Target:
    return Target(
        torch.stack([target.values for target in made]),
        torch.stack([target.weights for target in made]),
        torch.stack([target.labels for target in made]),
        made[0].neighborhood,
    )
