"""A box of a volume as a volume of its own, which ends where the box ends, or goes on by reflection.

box   a b c d          reflected by 2   c b | a b c d | c b
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emsuite.augment.resample import Source
from emsuite.data.training_volume import Ones


@dataclass(frozen=True)
class Window:
    """Voxels of a source inside a box, reflected at its faces."""

    source: Source
    begin: tuple[int, int, int]
    """The first voxel of the box in the source."""
    size: tuple[int, int, int]
    """Voxels of the box."""
    padding: tuple[int, int, int] = (0, 0, 0)
    """Voxels of reflection on each side."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels, z y x, with those of the reflection."""
        return tuple(n + 2 * p for n, p in zip(self.size, self.padding, strict=True))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the voxels."""
        return self.source.dtype

    @property
    def device(self) -> torch.device:
        """Device of the pieces."""
        return self.source.device

    def __getitem__(self, box: tuple[slice, ...]) -> Tensor:
        """Return the voxels of a box inside the window; what is read spans the voxels that are reflected into it."""
        ends = [part.indices(n)[:2] for part, n in zip(box, self.shape, strict=True)]
        wanted = [
            _reflected(np.arange(begin, end) - padding, size)
            for (begin, end), padding, size in zip(ends, self.padding, self.size, strict=True)
        ]
        lows = [int(each.min(initial=size - 1)) for each, size in zip(wanted, self.size, strict=True)]
        highs = [int(each.max(initial=low - 1)) + 1 for each, low in zip(wanted, lows, strict=True)]
        spans = zip(self.begin, lows, highs, strict=True)
        piece = self.source[tuple(slice(first + low, first + high) for first, low, high in spans)]
        for axis, (each, low) in enumerate(zip(wanted, lows, strict=True)):
            if len(each) != piece.shape[axis] or (np.diff(each) != 1).any():
                piece = piece.index_select(axis, torch.as_tensor(each - low, device=piece.device))
        return piece


def window(source: Source, begin: Sequence[int], size: Sequence[int], padding: Sequence[int] = (0, 0, 0)) -> Source:
    """Return a box of a source; of a tensor without reflection, a view, which reads as fast as the tensor."""
    if isinstance(source, Ones):
        return Ones(tuple(n + 2 * p for n, p in zip(size, padding, strict=True)), source.dtype, source.device)
    if isinstance(source, Tensor) and not any(padding):
        return source[tuple(slice(first, first + n) for first, n in zip(begin, size, strict=True))]
    (z, y, x), (depth, height, width), (pz, py, px) = begin, size, padding
    return Window(source, (z, y, x), (depth, height, width), (pz, py, px))


def _reflected(places: np.ndarray, size: int) -> np.ndarray:
    """Return where each place along an axis lies in the box, the edge voxel not repeated."""
    if size == 1:
        return np.zeros_like(places)
    around = np.mod(places, 2 * size - 2)
    return np.minimum(around, 2 * size - 2 - around)
