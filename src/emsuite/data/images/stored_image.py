"""A channel of a plate on disk as a source of samples, read box by box."""

from dataclasses import dataclass

import numpy as np
import torch

from emsuite.data.training_volume import CPU
from emsuite.plates.plate import ZarrPlate
from emsuite.plates.statistics import GreyScale


@dataclass(frozen=True)
class StoredImage:
    """A region of a channel on disk, which yields tensors as a tensor in memory would."""

    plate: ZarrPlate
    position: str
    time: int
    channel: int
    image: str = ""
    """Another image of the position than the main one."""
    region: tuple[slice, ...] = ()
    """Voxels, z y x; none: all."""
    scale: GreyScale | None = None
    """Grey values become (values - shift) / scale; None: they stay."""
    dtype: torch.dtype = torch.float32
    device: torch.device = CPU

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels, z y x."""
        return tuple(map(len, self._ranges()))

    def __getitem__(self, box: tuple[slice, ...]) -> torch.Tensor:
        """Read the voxels of a box."""
        ranges = [along[part] for along, part in zip(self._ranges(), box, strict=True)]
        part = [slice(along.start, along.stop) for along in ranges]
        voxels = self.plate.read(self.position, self.time, self.channel, self.image, part)
        values = self.scale.apply(voxels) if self.scale else voxels
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.dtype)

    def _ranges(self) -> list[range]:
        lengths = self.plate.shape(self.position, self.image)[2:]
        return [range(n)[part] for n, part in zip(lengths, self.region or [slice(None)] * 3, strict=True)]
