"""A volume of a plate to sample from: input channels, the images that targets are made of, the foreground.

input       all slices of a position and time, as context
images      a run of slices that may be predicted: chosen by the split, none of them empty
foreground  the same run
"""

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emsuite.augment.registry import Augmentation, change_values
from emsuite.augment.resample import Source, read_linear, read_nearest
from emsuite.augment.warp import Warp
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate, Roi
from emsuite.data.images.scales import columns, from_unit, measured
from emsuite.data.training_volume import Ones, TrainingVolume
from emsuite.plates.statistics import GreyScale
from emsuite.targets.images import INSIDE


@dataclass(frozen=True)
class ImageVolume(TrainingVolume):
    """`raw` is the first input channel, in the unit range of its grey values; there are no labels."""

    further: tuple[Source, ...] = ()
    """The other input channels, each as `raw`."""
    images: Mapping[str, Source] = field(default_factory=dict)
    """(Z, Y, X) float32, as `mask`, by the name of the array; grey values, or normalized ones."""
    units: tuple[GreyScale, ...] = ()
    """The unit range of each input channel."""
    scales: tuple[GreyScale, ...] | None = None
    """How each input channel is normalized; None: each sample measures itself, and its images."""
    measures: tuple[str, tuple[float, float]] = ("z_score", (1.0, 99.0))
    """Method and percentiles of samples that measure themselves."""
    measured_images: frozenset[str] = frozenset()
    """The images that such a sample normalizes."""
    min_fraction: float = 0.0
    """Least share of foreground in a sample."""
    content: Mapping[str, Any] = field(default_factory=dict)
    """The record of its voxels, which decide the samples."""
    normalization: Mapping[str, Any] = field(default_factory=dict)
    """What a checkpoint records, see `ImageScales.record`."""

    @property
    def tensors(self) -> list[Tensor]:
        """The arrays that take memory; none if they are read from disk."""
        return [
            source
            for source in (self.raw, *self.further, *self.images.values(), self.mask)
            if isinstance(source, Tensor)
        ]

    def to(self, device: torch.device | str) -> "ImageVolume":
        """Return the volume on `device`; a volume on disk stays there."""
        if not isinstance(self.raw, Tensor):
            return self

        def moved(source: Any) -> Any:
            return source.to(device) if isinstance(source, Tensor | Ones) else source

        images = {name: moved(source) for name, source in self.images.items()}
        further = tuple(map(moved, self.further))
        return replace(self, raw=moved(self.raw), mask=moved(self.mask), further=further, images=images)


@dataclass(frozen=True)
class ImageBoxes:
    """What a sample reads: its boxes, in voxels of the sample, and where they lie."""

    input_sample_vx: Roi
    output_sample_vx: Roi
    origin_raw_vx: Coordinate
    origin_images_vx: Coordinate


def read_images(
    volume: ImageVolume, warp: Warp, steps: Sequence[Augmentation], boxes: ImageBoxes, random: np.random.Generator
) -> dict[str, Tensor]:
    """Return the arrays of a sample.

    Args:
        volume: to read from.
        warp: the composed geometric augmentations.
        steps: all augmentations; those that change values change each input channel by a draw of its own.
        boxes: what is read.
        random: the sample's generator.

    Returns:
        `raw` (C, Z, Y, X) float32, the unit range of grey values; `gain` and `shift` (C, 1, 1, 1), which normalize it;
        `mask` (Z, Y, X) uint8 {0, 1}, the foreground; each image (Z, Y, X) float32; and `INSIDE`, as `mask`.
    """
    channels = [
        read_linear(source, warp, boxes.input_sample_vx, boxes.origin_raw_vx)
        for source in (volume.raw, *volume.further)
    ]
    for channel in channels:
        change_values(steps, channel, random)
    raw = torch.stack(channels)
    at = boxes.output_sample_vx, boxes.origin_images_vx
    assert volume.mask is not None
    mask, inside = read_nearest((volume.mask, Ones(tuple(volume.mask.shape), device=volume.raw.device)), warp, *at)
    images = {name: read_linear(source, warp, *at) for name, source in volume.images.items()}
    for name in volume.measured_images:
        images[name] = _normalized(images[name], volume)
    gain, shift = columns(_scales(volume, raw))
    scaled = {"gain": gain.to(raw.device), "shift": shift.to(raw.device)}
    return {"raw": raw, "mask": mask, INSIDE: inside} | scaled | images


def _scales(volume: ImageVolume, raw: Tensor) -> list[tuple[float, float]]:
    """Return gain and shift of each input channel."""
    if volume.scales is not None:
        return [from_unit(*pair) for pair in zip(volume.units, volume.scales, strict=True)]
    own = [measured(channel.cpu().numpy(), *volume.measures) for channel in raw]
    return [(1.0 / scale.scale, -scale.shift / scale.scale) for scale in own]


def _normalized(image: Tensor, volume: ImageVolume) -> Tensor:
    scale = measured(image.cpu().numpy(), *volume.measures)
    return (image - scale.shift) / scale.scale


def chances(volumes: Sequence[TrainingVolume], locations: Sequence[Sized]) -> list[float]:
    """Return how often each volume is drawn: all alike; those of a plate, which differ in size, by their positions.

    Raises:
        BadInput: no volume of a plate has a position.
    """
    first = volumes[0]
    if not isinstance(first, ImageVolume):
        return [1.0] * len(volumes)
    if not any(map(len, locations)):
        raise BadInput(
            f"{Path(first.name).parents[2]}: none of {len(volumes)} stacks of images has room for a sample with "
            f"{first.min_fraction:.0%} of foreground; expected a smaller input_shape or plate.min_fraction"
        )
    return [float(len(one)) for one in locations]
