"""A channel of a plate on disk as a source of samples, read box by box."""

from dataclasses import dataclass

import numpy as np
import torch

from emsuite.data.training_volume import CPU
from emsuite.plates.plate import ZarrPlate
from emsuite.plates.statistics import GreyScale


@dataclass(frozen=True)
class StoredImage:
    """A run of slices of a channel on disk, which yields tensors as a tensor in memory would."""

    plate: ZarrPlate
    position: str
    time: int
    channel: int
    image: str = ""
    """Another image of the position than the main one."""
    run: slice | None = None
    """Slices; None: all."""
    scale: GreyScale | None = None
    """Grey values become (values - shift) / scale; None: they stay."""
    dtype: torch.dtype = torch.float32
    device: torch.device = CPU

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels, z y x."""
        z, y, x = self.plate.shape(self.position, self.image)[2:]
        return len(range(z)[self.run or slice(None)]), y, x

    def __getitem__(self, box: tuple[slice, ...]) -> torch.Tensor:
        """Read the voxels of a box."""
        slices = range(self.plate.shape(self.position, self.image)[2])[self.run or slice(None)][box[0]]
        part = (slice(slices.start, slices.stop), *box[1:])
        voxels = self.plate.read(self.position, self.time, self.channel, self.image, part)
        values = self.scale.apply(voxels) if self.scale else voxels
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.dtype)
