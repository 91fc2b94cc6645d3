"""Targets of instance segmentation: the foreground, the contours of instances, and the distance to them.

labels                  1 1 1 1 1 2 2 2 2 2 0 0 0
foreground              1 1 1 1 1 1 1 1 1 1 0 0 0        labelled
contour                 0 0 0 1 1 1 1 0 1 1 1 1 0        two voxels of a difference, and one more on either side
distance, of foreground                                  tanh(d / 8) inside, tanh(-d / 50) outside
distance, of instances                                   d / its largest value in the instance; -1 outside

Numbers and definitions are those of PyTorch Connectomics (zudi-lin/pytorch_connectomics, v1.0), as CySGAN uses them
(Lauenburg et al. 2023): its targets `0`, `4-1-1`, `6-2d-8-50` and `5-3d-1-0-2.0`. The distance transform is computed
on the host, whatever the device of the labels.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator
from torch import Tensor
from torch.nn import functional

from emsuite.common.arrays import Shape
from emsuite.common.profile import timed
from emsuite.losses.registry import LOSSES, ONLY_AFFINITIES, ONLY_SIGMOID
from emsuite.losses.target import HeadOutput, Target
from emsuite.targets.head import Head, LabelCrop, LossName

_FULL = 5.0
"""The scaled distance in a section, or volume, without any background: tanh(5) = 0.9999."""
_OF_UNIT_RANGE = frozenset({"dice", "kl"})
"""Losses of values from 0 to 1."""


def foreground(labels: Tensor) -> Tensor:
    """Return 1 where a voxel is labelled, 0 elsewhere.

    Args:
        labels: integers of any shape.

    Returns:
        float32, the shape and device of the labels.
    """
    return (labels != 0).float()


def contour(labels: Tensor, in_sections: bool = True, width: int = 1) -> Tensor:
    """Return 1 at contours between instances, and between them and background; 0 elsewhere.

    A voxel is on a contour where the voxels before and behind it along an axis differ, or within `width` voxels of
    such a voxel (diagonals count). The border of the array is none.

    Args:
        labels: integers (..., Z, Y, X).
        in_sections: differences along y and x alone, and no growth along z.
        width: voxels by which the contour grows.

    Returns:
        float32, the shape and device of the labels.
    """
    axes = (-2, -1) if in_sections else (-3, -2, -1)
    is_contour = torch.zeros_like(labels, dtype=torch.bool)
    for axis in axes:
        length = labels.shape[axis]
        place = torch.arange(length, device=labels.device)
        ahead, behind = (place + 1).clamp(max=length - 1), (place - 1).clamp(min=0)
        is_contour |= labels.index_select(axis, ahead) != labels.index_select(axis, behind)
    return _grown(is_contour.float(), in_sections, width)


def semantic_distance(
    labels: Tensor, inside: float = 8.0, outside: float = 50.0, in_sections: bool = True, z_scale: float = 1.0
) -> Tensor:
    """Return tanh(d / inside) in the foreground, for the distance d to background, and tanh(-d / outside) outside it.

    Without background it is tanh(5), without foreground tanh(-5): in each section, or in the volume.

    Args:
        labels: integers (B, Z, Y, X). What lies beyond the array does not count.
        inside, outside: voxels that scale the distances.
        in_sections: distances in the section of a voxel.
        z_scale: the thickness of a section, in units of its pixels; for distances in the volume.

    Returns:
        float32 in (-1, 1), the shape and device of the labels.
    """

    def of_part(part: np.ndarray, anisotropy: tuple[float, ...]) -> np.ndarray:
        is_labelled = part != 0
        scaled = [
            np.full(part.shape, _FULL, np.float32)
            if where.all()
            else _distances(where.astype(np.uint8), anisotropy, black_border=False) / np.float32(scale)
            for where, scale in ((is_labelled, inside), (~is_labelled, outside))
        ]
        return np.tanh(scaled[0] - scaled[1])

    return _on_host(labels, of_part, in_sections, z_scale)


def instance_distance(labels: Tensor, in_sections: bool = False, z_scale: float = 2.0) -> Tensor:
    """Return the distance to other labels, background, or the border of the array, over its largest in the instance.

    Args:
        labels: integers (B, Z, Y, X).
        in_sections: distances, and the largest ones, in the section of a voxel.
        z_scale: the thickness of a section, in units of its pixels; for distances in the volume.

    Returns:
        float32, in (0, 1] inside of instances and -1 outside, the shape and device of the labels.
    """

    def of_part(part: np.ndarray, anisotropy: tuple[float, ...]) -> np.ndarray:
        ids, instance = np.unique(part, return_inverse=True)
        instance = instance.reshape(part.shape)
        distance, largest = _distances(part, anisotropy, black_border=True), np.zeros(ids.size, np.float32)
        np.maximum.at(largest, instance.ravel(), distance.ravel())
        relative = distance / np.where(largest > 0, largest, np.float32(1))[instance]
        return np.where(part == 0, np.float32(-1), relative)

    return _on_host(labels, of_part, in_sections, z_scale)


def _distances(labels: np.ndarray, anisotropy: tuple[float, ...], black_border: bool) -> np.ndarray:
    import edt

    return edt.edt(np.ascontiguousarray(labels), anisotropy=anisotropy, black_border=black_border, parallel=1)


def _on_host(
    labels: Tensor, of_part: Callable[[np.ndarray, tuple[float, ...]], np.ndarray], in_sections: bool, z_scale: float
) -> Tensor:
    """Return what `of_part` makes of each section, or each volume, of labels (B, Z, Y, X)."""
    volumes = labels.cpu().numpy()
    values = np.empty(volumes.shape, np.float32)
    for volume, result in zip(volumes, values, strict=True):
        if in_sections:
            for section, of_section in zip(volume, result, strict=True):
                of_section[:] = of_part(section, (1.0, 1.0))
        else:
            result[:] = of_part(volume, (z_scale, 1.0, 1.0))
    return torch.from_numpy(values).to(labels.device)


def _grown(values: Tensor, in_sections: bool, width: int) -> Tensor:
    """Return the largest of the values (..., Z, Y, X) within `width` voxels of each."""
    if width == 0:
        return values
    pad = (0 if in_sections else width, width, width)
    window = tuple(2 * n + 1 for n in pad)
    flat = values.reshape(-1, 1, *values.shape[-3:])
    return functional.max_pool3d(flat, window, stride=1, padding=pad).view(values.shape)


class InstanceHead(Head):
    """What the heads of instance segmentation share: one channel, and further losses. Voxels off the mask count 0."""

    not_architecture: ClassVar[frozenset[str]] = Head.not_architecture | {"further_losses"}

    further_losses: dict[LossName, PositiveFloat] = Field(
        {}, description="losses that are added to the first, with their factors, as {dice: 0.5}"
    )

    @model_validator(mode="after")
    def _losses_fit(self) -> "InstanceHead":
        odd = ONLY_AFFINITIES if self.activation == "sigmoid" else ONLY_AFFINITIES | ONLY_SIGMOID | _OF_UNIT_RANGE
        for name in sorted(self.loss_names & odd):
            raise ValueError(f"the loss '{name}' does not fit {self.target}, whose activation is {self.activation}")
        return self

    @property
    def loss_names(self) -> frozenset[str]:
        """See `Head.loss_names`."""
        return frozenset({self.loss, *self.further_losses})

    def compute_loss(self, output: HeadOutput, target: Target) -> Tensor:
        """See `Head.compute_loss`."""
        total = super().compute_loss(output, target)
        for name, factor in self.further_losses.items():
            total = total + factor * LOSSES[name](output, target)
        return total

    @property
    def channels(self) -> int:
        """One."""
        return 1

    def label_context(self, voxel_size: Sequence[float]) -> tuple[Shape, Shape]:
        """See `Head.label_context`: none."""
        return (0, 0, 0), (0, 0, 0)


class ForegroundHead(InstanceHead):
    """The foreground: 1 where a voxel is labelled."""

    target: Literal["foreground"]
    loss: LossName = "bce"

    def make(self, crop: LabelCrop) -> Target:
        """See `Head.make`."""
        labels = crop.labels[:, *crop.inner]
        return _target(foreground(labels), _mask(crop), labels)


class ContourHead(InstanceHead):
    """The contours of instances, against each other and against background."""

    target: Literal["contour"]
    loss: LossName = "bce"
    in_sections: bool = Field(True, description="contours of each section; false: in the volume")
    width: NonNegativeInt = Field(1, le=100, description="voxels by which the contour grows")

    @property
    def _reach(self) -> Shape:
        return (0 if self.in_sections else self.width + 1, self.width + 1, self.width + 1)

    def label_context(self, voxel_size: Sequence[float]) -> tuple[Shape, Shape]:
        """See `Head.label_context`: as far as a contour sees."""
        return self._reach, self._reach

    def mask_context(self, voxel_size: Sequence[float]) -> tuple[Shape, Shape]:
        """See `Head.mask_context`: as `label_context`."""
        return self.label_context(voxel_size)

    def make(self, crop: LabelCrop) -> Target:
        """See `Head.make`. A voxel counts if all that its contour depends on lies in the mask."""
        with timed("contour", crop.labels.device):
            values = contour(crop.labels, self.in_sections, self.width)[:, *crop.inner]
            weights = None
            if crop.mask is not None:
                weights = 1 - _grown(1 - (crop.mask != 0).float(), self.in_sections, self.width + 1)[:, *crop.inner]
        return _target(values, weights, crop.labels[:, *crop.inner])


class DistanceHead(InstanceHead):
    """The distance to the border of the foreground, or of each instance; -1 to 1."""

    activation: ClassVar[Literal["sigmoid", "tanh", "none"]] = "tanh"

    target: Literal["distance"]
    loss: LossName = "mse"
    of: Literal["foreground", "instances"] = Field(
        "foreground",
        description="foreground: tanh of the distance to its border, on either side; instances: the distance to the "
        "border of each, over its largest, and -1 outside",
    )
    in_sections: bool | None = Field(
        None, description="distances in each section; false: in the volume. By default the published: in each section "
        "for the foreground, in the volume for instances",
    )  # fmt: skip
    inside: PositiveFloat = Field(8.0, description="of foreground: voxels that scale distances inside")
    outside: PositiveFloat = Field(50.0, description="of foreground: voxels that scale distances outside")
    z_scale: PositiveFloat = Field(2.0, description="in the volume: thickness of a section over the width of a pixel")
    context: NonNegativeInt = Field(
        0, le=1000, description="voxels of labels, in each axis of distances, read around the output; published: 0"
    )

    @property
    def _per_section(self) -> bool:
        return self.of == "foreground" if self.in_sections is None else self.in_sections

    def label_context(self, voxel_size: Sequence[float]) -> tuple[Shape, Shape]:
        """See `Head.label_context`: `context`."""
        around = (0 if self._per_section else self.context, self.context, self.context)
        return around, around

    def make(self, crop: LabelCrop) -> Target:
        """See `Head.make`. Distances are those in the labels with their `context`, and no others."""
        around, _ = self.label_context(crop.voxel_size)
        part = tuple(slice(s.start - n, s.stop + n) for s, n in zip(crop.inner, around, strict=True))
        labels = crop.labels[:, *part]
        with timed("distance", crop.labels.device):
            if self.of == "foreground":
                values = semantic_distance(labels, self.inside, self.outside, self._per_section, self.z_scale)
            else:
                values = instance_distance(labels, self._per_section, self.z_scale)
        inner = tuple(slice(n, size - n) for n, size in zip(around, labels.shape[1:], strict=True))
        return _target(values[:, *inner], _mask(crop), crop.labels[:, *crop.inner])


def _mask(crop: LabelCrop) -> Tensor | None:
    return None if crop.mask is None else (crop.mask[:, *crop.inner] != 0).float()


def _target(values: Tensor, weights: Tensor | None, labels: Tensor) -> Target:
    """Return the target of one channel for values and weights (B, Z, Y, X)."""
    counted = torch.ones_like(values) if weights is None else weights
    return Target(values[:, None], counted[:, None], labels)
