"""Artifacts of sections, such as folds and stains, taken from a volume to be laid over those of samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from emsuite.augment.missing_sections import ArtifactVolume, MissingSections
from emsuite.augment.registry import Augmentation
from emsuite.common.errors import BadInput
from emsuite.data.normalization import to_unit_range
from emsuite.data.sampling_locations import Locations
from emsuite.data.training_volume import check_grey, raw_source
from emsuite.io.volume import StatedOtherwise, Volume, open_volume

_LEAST = 0.05
"""Of a section that an artifact must hide somewhat."""


@dataclass(frozen=True)
class ArtifactSections:
    """Artifacts in memory, on the device that samples are made on: an `ArtifactSource`."""

    values: Tensor
    """(Z, Y, X) uint8, or float32 in [0, 1]."""
    opacity: Tensor
    """(Z, Y, X) float32 in [0, 1]."""
    positions: Locations
    """Of pieces as large as a section of a sample."""
    shape: tuple[int, int]
    """Of such a section, y x."""

    def draw(self, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return values and opacity of a random piece, (Y, X) float32, mirrored and, if it is square, transposed."""
        z, y, x = self.positions.draw(random)
        mirrored, is_turned = random.integers(0, 2, 2), random.integers(0, 2) and self.shape[0] == self.shape[1]
        axes = [axis for axis in range(2) if mirrored[axis]]
        pieces = [array[z, y : y + self.shape[0], x : x + self.shape[1]].flip(axes)
                  for array in (self.values, self.opacity)]  # fmt: skip
        values, opacity = (piece.T if is_turned else piece for piece in pieces)
        return to_unit_range(values), opacity


def with_artifacts(
    augmentations: Sequence[Augmentation],
    input_shape: Sequence[int],
    voxel_size: Sequence[float],
    device: torch.device,
) -> tuple[Augmentation, ...]:
    """Return the augmentations, ready to be applied: those that lay artifacts over sections hold the artifacts.

    Args:
        augmentations: of a network.
        input_shape: voxels of raw per sample, z y x.
        voxel_size: of the data set, nm.
        device: that samples are made on.

    Raises:
        BadInput: a volume of artifacts is missing, has other voxels or values, or its sections are too small.
    """
    section = (int(input_shape[1]), int(input_shape[2]))
    return tuple(
        step.with_source(_load(step.artifacts, section, voxel_size, device))
        if isinstance(step, MissingSections) and step.artifact and step.artifacts is not None
        else step
        for step in augmentations
    )


def artifacts_of(augmentations: Sequence[Augmentation]) -> list[ArtifactVolume]:
    """Return the volumes of artifacts that augmentations name and use."""
    steps = [step for step in augmentations if isinstance(step, MissingSections) and step.artifact]
    return [step.artifacts for step in steps if step.artifacts is not None]


def open_artifacts(artifacts: ArtifactVolume, voxel_size: Sequence[float]) -> tuple[Volume, Volume]:
    """Return the arrays of raw and opacity, whose files need not say the voxel size (nm).

    Raises:
        BadInput: an array is missing or odd, or says another voxel size.
    """
    path = Path(artifacts.volume)
    try:
        raw, opacity = (open_volume(path / name, voxel_size=voxel_size) for name in (artifacts.raw, artifacts.opacity))
    except StatedOtherwise:
        raise BadInput(f"{path}: artifacts of other voxels, expected the network's, {tuple(voxel_size)} nm") from None
    check_grey(raw)
    if raw.shape != opacity.shape or len(raw.shape) != 3:
        raise BadInput(f"{opacity.path}: {opacity.shape} voxels, expected z, y, x as {raw.path}: {raw.shape}")
    return raw, opacity


def _load(
    artifacts: ArtifactVolume, section: tuple[int, int], voxel_size: Sequence[float], device: torch.device
) -> ArtifactSections:
    raw, stored = open_artifacts(artifacts, voxel_size)
    opacity = _opacity(stored)
    positions = Locations(opacity.numpy() > 0, (1, *section), (0, 0, 0), _LEAST)
    if not len(positions):
        raise BadInput(
            f"{raw.path}: artifacts in sections of {raw.shape[1:]} voxels; expected sections of at least {section}, of "
            f"which an artifact hides {_LEAST:.0%} somewhere"
        )
    return ArtifactSections(raw_source(raw)[:, :, :].to(device), opacity.to(device), positions, section)


def _opacity(stored: Volume) -> Tensor:
    voxels = stored.read()
    if stored.dtype.kind in "bu":
        return torch.from_numpy(voxels.astype(np.float32) / (255 if voxels.max(initial=0) > 1 else 1)).clamp_(max=1)
    if stored.dtype.kind != "f" or not (voxels.min() >= 0 and voxels.max() <= 1):
        raise BadInput(f"{stored.path}: holds {stored.dtype}, expected uint8, or floats from 0 to 1")
    return torch.from_numpy(voxels.astype(np.float32))
