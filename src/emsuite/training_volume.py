"""A volume to train on, resident in memory: raw, labels and labels mask."""

from dataclasses import dataclass
from pathlib import Path

import torch
from funlib.geometry import Coordinate, Roi


@dataclass(frozen=True)
class TrainingVolume:
    """Raw, labels and mask of one volume on one device, on the same voxel grid."""

    raw: torch.Tensor
    """(Z, Y, X) uint8, or float32 0 to 1."""
    labels: torch.Tensor
    """(Z, Y, X) int32, renumbered from 1; 0 is background."""
    mask: torch.Tensor | None
    """(Z, Y, X) uint8 {0, 1} as `labels`; None is all 1."""
    voxel_size: Coordinate
    """nm, z y x."""
    raw_offset: Coordinate
    """Where raw begins, nm."""
    labels_offset: Coordinate
    """Where labels and mask begin, nm."""
    name: str
    """For messages: the path it was read from."""


def load_training_volume(path: str | Path, roi: Roi | None = None) -> TrainingVolume:
    """Read `volumes/raw`, `volumes/labels/neuron_ids` and, where there is one, `volumes/labels/labels_mask`.

    Only labels inside `roi` (nm) are used; raw is kept around it as context. Raises BadInput for what cannot be trained
    on.
    """
    raise NotImplementedError
