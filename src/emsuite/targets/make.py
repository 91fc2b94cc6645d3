"""From a batch of labels to the targets of all heads.

    labels  ->  grow the boundary  ->  number connected components anew  ->  target of each head

The order is that of the originals. By default the boundary grows in the labels with all their context. In the originals
it grows where the labels mask is read as well: LSDs see the labels of their context as they are.
Source: the training pipelines of funkelab/lsd_nm_experiments; gunpowder's GrowBoundary and AddAffinities.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from emsuite.common.arrays import Shape
from emsuite.common.profile import timed
from emsuite.losses.target import Target
from emsuite.targets.boundary import GrowBoundary, connected_components, grow_boundary
from emsuite.targets.head import Head, LabelCrop


@dataclass(frozen=True)
class TargetMaker:
    """Makes the targets of all heads of a network.

    It owns both ends of the label context: how far labels must be read around the predicted region, and which part of
    them is that region.
    """

    heads: Mapping[str, Head]
    """By name."""
    voxel_size: Sequence[float]
    """nm, z y x."""
    boundary: GrowBoundary | None = None
    """How the boundary grows before targets are computed; None: not at all."""
    renumber_from: int | None = None
    """After this iteration, each connected component gets a label of its own; None: never."""
    is_vector: bool = False
    """Whether the network predicts one voxel for all: the weighted mean of the values that a target has."""

    @property
    def label_context(self) -> tuple[Shape, Shape]:
        """Voxels of labels, z y x, that the targets need before and behind the predicted region."""
        return _widest([head.label_context(self.voxel_size) for head in self.heads.values()])

    def __call__(
        self, labels: Tensor, mask: Tensor, iteration: int, images: Mapping[str, Tensor] | None = None
    ) -> dict[str, Target]:
        """Return the target of each head.

        Args:
            labels: (B, Z, Y, X) int32, 0 is background, with `label_context` around the predicted region.
            mask: (B, Z, Y, X) uint8 {0, 1}, as `labels`; 0 where nobody labelled.
            iteration: the training step that ends at this iteration uses the targets.
            images: (B, Z, Y, X) float32, as `labels`, by the names of `emsuite.targets.images`.
        """
        inner = self._within(labels.shape[1:], [(0, 0, 0)] * 2)
        # A full mask saves work. On a GPU, asking for it would make the host wait.
        partial_mask = None if mask.device.type == "cpu" and mask.all() else mask
        with timed("boundary", labels.device):
            if self.boundary is not None:
                labels = self._grown(labels, partial_mask, self.boundary)
            if self.renumber_from is not None and iteration > self.renumber_from:
                labels = torch.stack([connected_components(sample) for sample in labels])
        crop = LabelCrop(labels, partial_mask, inner, self.voxel_size, images or {})
        targets = {name: head.settings_at(iteration).make(crop) for name, head in self.heads.items()}
        return {name: _mean(target) for name, target in targets.items()} if self.is_vector else targets

    def _grown(self, labels: Tensor, mask: Tensor | None, boundary: GrowBoundary) -> Tensor:
        region: tuple[slice, ...] = (slice(None),) * 3
        if boundary.region == "output":
            around = _widest([head.mask_context(self.voxel_size) for head in self.heads.values()])
            region = self._within(labels.shape[1:], around)
        # The border of the region forms no boundary, as that of an array.
        inside = None if mask is None or not boundary.masked else mask[:, *region]
        grown = grow_boundary(labels[:, *region], boundary.steps, boundary.in_plane, inside)
        if grown.shape == labels.shape:
            return grown
        labels = labels.clone()
        labels[:, *region] = grown
        return labels

    def _within(self, shape: Sequence[int], around: Sequence[Shape]) -> tuple[slice, ...]:
        """Return the predicted region, and `around` voxels before and behind it, in labels of this shape."""
        before, behind = (
            [c - a for c, a in zip(*pair, strict=True)] for pair in zip(self.label_context, around, strict=True)
        )
        return tuple(slice(b, n - e) for b, e, n in zip(before, behind, shape, strict=True))


def _widest(contexts: Sequence[tuple[Shape, Shape]]) -> tuple[Shape, Shape]:
    before, behind = zip(*contexts, strict=True)
    return tuple(map(max, zip(*before, strict=True))), tuple(map(max, zip(*behind, strict=True)))


def _mean(target: Target) -> Target:
    """Return the weighted mean over all voxels as one voxel, of weight 1 unless no voxel has weight."""
    total = target.weights.sum((2, 3, 4), keepdim=True)
    values = (target.values * target.weights).sum((2, 3, 4), keepdim=True) / torch.where(total > 0, total, 1.0)
    return Target(values, (total > 0).float(), target.labels[:, :1, :1, :1])
