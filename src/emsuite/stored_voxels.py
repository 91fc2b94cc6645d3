"""Volumes that stay on disk, of which only the pieces that samples need are read."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from funlib.geometry import Coordinate, Roi

from emsuite.volume import Volume

CPU = torch.device("cpu")


@dataclass(frozen=True)
class StoredVoxels:
    """An array on disk, inside `roi`, that yields tensors as a tensor in memory would."""

    volume: Volume
    roi: Roi
    """nm"""
    convert: Callable[[Volume, np.ndarray], torch.Tensor]
    """makes a tensor of `dtype` of the voxels read, and checks them; the volume is for messages"""
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels, z y x."""
        return tuple(self.roi.shape / self.volume.voxel_size)

    @property
    def device(self) -> torch.device:
        """Where the pieces lie: the host."""
        return CPU

    def __getitem__(self, box: tuple[slice, ...]) -> torch.Tensor:
        """The voxels of a box."""
        ends = [part.indices(size)[:2] for part, size in zip(box, self.shape, strict=True)]
        begin, end = (Coordinate(side) * self.volume.voxel_size for side in zip(*ends, strict=True))
        return self.convert(self.volume, self.volume.read(Roi(self.roi.begin + begin, end - begin)))


@dataclass(frozen=True)
class Ones:
    """A volume of 1, which takes no memory."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.uint8
    device: torch.device = CPU

    def to(self, device: torch.device | str) -> "Ones":
        """The same on `device`."""
        return replace(self, device=torch.device(device))

    def __getitem__(self, box: tuple[slice, ...]) -> torch.Tensor:
        """The ones of a box: a single one, seen as many."""
        ends = [part.indices(size)[:2] for part, size in zip(box, self.shape, strict=True)]
        return torch.ones((), dtype=self.dtype, device=self.device).expand([end - begin for begin, end in ends])
