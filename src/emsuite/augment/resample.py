"""Reading a volume through a warp: linearly for raw, the nearest voxel for labels and masks; 0 outside the volume."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from funlib.geometry import Roi

from emsuite.augment.interpolate import linear, nearest
from emsuite.augment.sampling_grid import SamplingGrid
from emsuite.augment.warp import Warp


class Source(Protocol):
    """A volume of which a piece is read: a tensor, or an array on disk that yields tensors."""

    @property
    def shape(self) -> Sequence[int]:
        """Voxels, z y x."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the voxels."""

    @property
    def device(self) -> torch.device:
        """Where the pieces lie."""

    def __getitem__(self, box: tuple[slice, ...], /) -> torch.Tensor:
        """The voxels of a box inside the volume."""


def read_linear(source: Source, warp: Warp, box: Roi, place: Sequence[int]) -> torch.Tensor:
    """`source` (Z, Y, X) over the sample's `box` (voxels), interpolated linearly: float32, values as in the source.

    `place` is the voxel of `source` that the warp's coordinates count from.
    """

    def interpolate(pieces: Sequence[torch.Tensor], places: SamplingGrid, outs: Sequence[torch.Tensor]) -> None:
        linear(pieces[0], places, outs[0])

    return _read([source], [torch.float32], warp, box, place, interpolate)[0]


def read_nearest(sources: Sequence[Source], warp: Warp, box: Roi, place: Sequence[int]) -> tuple[torch.Tensor, ...]:
    """As `read_linear`, the nearest voxels of several volumes on one grid, each in its own type."""
    return _read(sources, [source.dtype for source in sources], warp, box, place, nearest)


def _read(
    sources: Sequence[Source],
    dtypes: Sequence[torch.dtype],
    warp: Warp,
    box: Roi,
    place: Sequence[int],
    interpolate: Callable,
) -> tuple[torch.Tensor, ...]:
    image, device = warp.turn.image(box), sources[0].device
    begin, end = warp.bounds(image) + np.array(place)
    low, high = np.maximum(begin, 0), np.minimum(end, sources[0].shape)
    if warp.rest is None or not (low < high).all():
        found = tuple(torch.zeros(tuple(image.shape), dtype=dtype, device=device) for dtype in dtypes)
        if (low < high).all():
            for source, voxels in zip(sources, found, strict=True):
                voxels[_slices(low - begin, high - begin)] = source[_slices(low, high)]
        return tuple(warp.turn.apply(voxels).contiguous() for voxels in found)
    pieces = [source[_slices(low, high)] for source in sources]
    found = tuple(torch.empty(tuple(box.shape), dtype=dtype, device=device) for dtype in dtypes)
    interpolate(pieces, warp.places(box, np.array(place) - low, device), found)
    return found


def _slices(begin: np.ndarray, end: np.ndarray) -> tuple[slice, ...]:
    return tuple(map(slice, begin.tolist(), end.tolist()))
