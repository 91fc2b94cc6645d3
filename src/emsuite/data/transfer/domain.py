"""A domain, ready to be sampled: its volumes, the boxes in them, the scale of its values.

settings -> volumes in memory or on disk -> boxes, each a window of a volume -> statistics of all boxes
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from emsuite.augment.resample import Source
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate, Roi
from emsuite.data.training_volume import TrainingVolume
from emsuite.data.transfer.settings import DomainSettings
from emsuite.data.transfer.statistics import DomainStatistics, check_varied, measure_samples, measure_voxels
from emsuite.data.transfer.volumes import Loaded, load_patches, load_volumes
from emsuite.data.transfer.window import window


@dataclass(frozen=True)
class Domain:
    """Images of one look, and the labels of some."""

    name: str
    """Its key in the configuration, for messages."""
    loaded: Loaded
    statistics: DomainStatistics
    reflect: bool = False

    @property
    def has_labels(self) -> bool:
        """Whether it has labels."""
        return self.loaded.volumes[0].labels is not None

    @property
    def probabilities(self) -> tuple[float, ...]:
        """How often each box is drawn: a class as often as any other, and in it a box as often as any other."""
        numbers = Counter(box.class_name for box in self.loaded.boxes)
        return tuple(1.0 / len(numbers) / numbers[box.class_name] for box in self.loaded.boxes)

    def to(self, device: torch.device | str) -> "Domain":
        """Return the domain on `device`; volumes on disk stay there."""
        moved = tuple(volume.to(device) for volume in self.loaded.volumes)
        return replace(self, loaded=replace(self.loaded, volumes=moved))

    def regions(self) -> list[tuple[str, Roi]]:
        """Return the volume of each box, by its name, and where the box lies in it, nm."""
        placed = []
        for box in self.loaded.boxes:
            volume = self.loaded.volumes[box.volume]
            begin, size = (Coordinate(voxels) * volume.voxel_size for voxels in (box.begin, box.size))
            placed.append((volume.name, Roi(volume.raw_offset + begin, size)))
        return placed

    def windows(self, shape: Sequence[int]) -> list[TrainingVolume]:
        """Return each box as a volume to take samples of a shape from; raise BadInput if one does not fit into it."""
        windows, padding = [], [n // 2 if self.reflect else 0 for n in shape]
        for box in self.loaded.boxes:
            volume = self.loaded.volumes[box.volume]
            if any(n + 2 * p < m for n, p, m in zip(box.size, padding, shape, strict=True)):
                raise BadInput(
                    f"{volume.name}: a box of {box.size} voxels of domain {self.name}, expected at least those of a "
                    f"sample, {tuple(shape)}, or `reflect: true`"
                )
            raw, labels, mask = (
                None if source is None else window(source, box.begin, box.size, padding)
                for source in (volume.raw, volume.labels, volume.mask)
            )
            assert raw is not None
            offset = volume.raw_offset + (Coordinate(box.begin) - Coordinate(padding)) * volume.voxel_size
            windows.append(replace(volume, raw=raw, labels=labels, mask=mask, raw_offset=offset, labels_offset=offset))
        return windows

    def record(self) -> list[dict[str, Any]]:
        """Return what decides the samples of the domain: contents of its volumes, and the boxes in them."""
        boxes = [[box.volume, list(box.begin), list(box.size), box.class_name] for box in self.loaded.boxes]
        return [dict(content) for content in self.loaded.contents()] + [{"boxes": boxes, "reflect": self.reflect}]


def load_domain(
    settings: DomainSettings,
    name: str,
    voxel_size: Sequence[float],
    shape: Sequence[int],
    project: Path = Path(),
    statistics: DomainStatistics | None = None,
) -> Domain:
    """Read a domain, and measure the scale of its values.

    Args:
        settings: names its volumes or patches.
        name: `a` or `b`; only `a` may have labels.
        voxel_size: of the network, nm, for a domain that says none.
        shape: of a sample, voxels, for statistics of samples.
        project: paths that are not there as seen from here are those of this folder.
        statistics: recorded in a checkpoint; None: they are measured.

    Raises:
        BadInput: a volume is missing, or has another voxel size; labels do not match; a box lies outside its volume.
    """
    if settings.has_labels and name != "a":
        raise BadInput(f"domain {name}: has labels, expected labels of domain a alone")
    size, recorded = settings.voxel_size or voxel_size, statistics.grey_range if statistics else None
    load = load_volumes if settings.volumes else load_patches
    loaded = load(settings, Coordinate(size), project, recorded)
    if settings.has_labels and not any(volume.has_labels() for volume in loaded.volumes):
        raise BadInput(f"domain {name}: all its labels are 0, expected objects, or no labels")
    if statistics is None:
        statistics = _measured(settings, name, loaded, shape)
    return Domain(name, loaded, statistics, settings.reflect)


def _measured(settings: DomainSettings, name: str, loaded: Loaded, shape: Sequence[int]) -> DomainStatistics:
    mean, std = 0.0, 1.0
    boxes, names = _boxes(loaded), f"domain {name}"
    check_varied(boxes, names)
    if settings.scaling == "standardized":
        if isinstance(settings.statistics, tuple):
            mean, std = settings.statistics
        else:
            is_all = settings.statistics == "voxels"
            mean, std = measure_voxels(boxes, names) if is_all else measure_samples(boxes, shape, names)
    return DomainStatistics(mean, std, loaded.grey_range)


def _boxes(loaded: Loaded) -> list[Source]:
    return [window(loaded.volumes[box.volume].raw, box.begin, box.size) for box in loaded.boxes]
