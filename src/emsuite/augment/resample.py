"""Reading a volume through a warp: linear interpolation for raw, the nearest voxel for labels and masks.

On a GPU, `read_batch` reads all samples of a batch in a handful of kernels, with one copy of parameters. Values are the
same, up to the order of sums.

Voxels outside the volume are 0. The frames of coordinates are those of `emsuite.augment.warp`.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from emsuite.augment.interpolate import linear, nearest
from emsuite.augment.read_table import Placed, Table, Word, add_displacement, add_row
from emsuite.augment.sampling_grid import SamplingGrid
from emsuite.augment.warp import Warp
from emsuite.common.device import has_triton
from emsuite.common.geometry import Roi
from emsuite.common.profile import timed


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


@cache
def can_read_batches(device: torch.device) -> bool:
    """Return whether batches can be read at once on this device: a GPU, with triton."""
    return device.type == "cuda" and torch.cuda.is_available() and has_triton()


def read_batch(
    samples: Sequence[Placed], input_sample_vx: Roi, labels_sample_vx: Roi, device: torch.device
) -> dict[str, Tensor]:
    """Read all samples of a batch through their warps.

    Args:
        samples: all with labels, or all without.
        input_sample_vx: the voxels of raw to be read.
        labels_sample_vx: the voxels of labels and mask to be read.
        device: that of the volumes.

    Returns:
        `raw` (B, Z, Y, X) float32 0 to 1; if there are labels, `labels` (B, Z, Y, X) int32 and `mask` (B, Z, Y, X)
        uint8. Voxels outside a volume are 0.
    """
    from emsuite.augment import interpolate_triton as kernels

    table, number = Table(), len(samples)
    displacements = [add_displacement(table, sample.warp) for sample in samples]
    for sample, displaced in zip(samples, displacements, strict=True):
        add_row(table, sample, input_sample_vx, (sample.raw, None), displaced)
    has_labels = samples[0].labels is not None
    for sample, displaced in zip(samples, displacements, strict=True) if has_labels else ():
        add_row(table, sample, labels_sample_vx, (sample.labels, sample.mask), displaced)
    points = max(row[Word.POINTS + axis] for row in table.rows for axis in range(3))
    on_device, rows = table.on(device), len(table.rows)
    arrays = {"raw": _empty(number, input_sample_vx, torch.float32, device)}
    for is_bytes in sorted({sample.raw.dtype == torch.uint8 for sample in samples}):
        kernels.read_linear(on_device, rows, 0, points, is_bytes, arrays["raw"])
    if has_labels:
        arrays["labels"] = _empty(number, labels_sample_vx, torch.int32, device)
        arrays["mask"] = _empty(number, labels_sample_vx, torch.uint8, device)
        kernels.read_nearest(on_device, rows, number, points, arrays["labels"], arrays["mask"])
    return arrays


def _empty(number: int, box: Roi, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.empty((number, *box.shape), dtype=dtype, device=device)


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
            with timed("reading", device):
                for source, out in zip(sources, values, strict=True):
                    out[inside] = source[_slices(low_source_vx, high_source_vx)]
        with timed("warp", device):
            return tuple(warp.permutation.apply(out).contiguous() for out in values)
    with timed("reading", device):
        pieces = [source[_slices(low_source_vx, high_source_vx)] for source in sources]
    with timed("warp", device):
        values = tuple(torch.empty(tuple(box_sample_vx.shape), dtype=dtype, device=device) for dtype in dtypes)
        origin_piece_vx = np.array(origin_source_vx) - low_source_vx
        interpolate(pieces, warp.sampling_grid(box_sample_vx, origin_piece_vx, device), values)
    return values


def _slices(begin: np.ndarray, end: np.ndarray) -> tuple[slice, ...]:
    return tuple(map(slice, begin.tolist(), end.tolist()))
