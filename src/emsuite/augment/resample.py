"""Reading a volume through a warp: linear interpolation for raw, the nearest voxel for labels and masks.

Voxels outside the volume are 0. The frames of coordinates are those of `emsuite.augment.warp`.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch

from emsuite.augment.interpolate import linear, nearest
from emsuite.augment.sampling_grid import SamplingGrid
from emsuite.augment.warp import Warp
from emsuite.common.geometry import Roi


class Source(Protocol):
    """A volume that pieces are read from: a tensor, or an array on disk that yields tensors."""

    @property
    def shape(self) -> Sequence[int]:
        """Voxels, z y x."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the voxels."""

    @property
    def device(self) -> torch.device:
        """Device of the pieces."""

    def __getitem__(self, box: tuple[slice, ...], /) -> torch.Tensor:
        """Return the voxels of a box inside the volume."""


def read_linear(source: Source, warp: Warp, box_sample_vx: Roi, origin_source_vx: Sequence[int]) -> torch.Tensor:
    """Read `source` through `warp` with linear interpolation.

    Args:
        source: (Z, Y, X), any type.
        warp: the composed geometric augmentations.
        box_sample_vx: the voxels of the sample to be read.
        origin_source_vx: the voxel of `source` at the sample's voxel 0.

    Returns:
        float32 of the shape of the box, with values as in the source. Values are 0 outside the source.
    """

    def interpolate(pieces: Sequence[torch.Tensor], grid: SamplingGrid, outs: Sequence[torch.Tensor]) -> None:
        linear(pieces[0], grid, outs[0])

    return _read([source], [torch.float32], warp, box_sample_vx, origin_source_vx, interpolate)[0]


def read_nearest(
    sources: Sequence[Source], warp: Warp, box_sample_vx: Roi, origin_source_vx: Sequence[int]
) -> tuple[torch.Tensor, ...]:
    """Read the nearest voxels of several volumes of one shape, each in its own type. Arguments as in `read_linear`."""
    dtypes = [source.dtype for source in sources]
    return _read(sources, dtypes, warp, box_sample_vx, origin_source_vx, nearest)


def _read(
    sources: Sequence[Source],
    dtypes: Sequence[torch.dtype],
    warp: Warp,
    box_sample_vx: Roi,
    origin_source_vx: Sequence[int],
    interpolate: Callable,
) -> tuple[torch.Tensor, ...]:
    box_permuted_vx, device = warp.permutation.image(box_sample_vx), sources[0].device
    begin_source_vx, end_source_vx = warp.bounds(box_permuted_vx) + np.array(origin_source_vx)
    # the piece is the part of these bounds inside the volume
    low_source_vx, high_source_vx = np.maximum(begin_source_vx, 0), np.minimum(end_source_vx, sources[0].shape)
    is_empty = not (low_source_vx < high_source_vx).all()
    if warp.resampling is None or is_empty:
        shape = tuple(box_permuted_vx.shape)
        values = tuple(torch.zeros(shape, dtype=dtype, device=device) for dtype in dtypes)
        if not is_empty:
            inside = _slices(low_source_vx - begin_source_vx, high_source_vx - begin_source_vx)
            for source, out in zip(sources, values, strict=True):
                out[inside] = source[_slices(low_source_vx, high_source_vx)]
        return tuple(warp.permutation.apply(out).contiguous() for out in values)
    pieces = [source[_slices(low_source_vx, high_source_vx)] for source in sources]
    values = tuple(torch.empty(tuple(box_sample_vx.shape), dtype=dtype, device=device) for dtype in dtypes)
    origin_piece_vx = np.array(origin_source_vx) - low_source_vx
    interpolate(pieces, warp.sampling_grid(box_sample_vx, origin_piece_vx, device), values)
    return values


def _slices(begin: np.ndarray, end: np.ndarray) -> tuple[slice, ...]:
    return tuple(map(slice, begin.tolist(), end.tolist()))
