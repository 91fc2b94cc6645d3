"""Values of a volume at the coordinates of a sampling grid: linear, or those of the nearest voxel. 0 outside.

On a CPU, numba compiles the loops of `interpolate_loops`. They read the volume as it is stored, even if it is a piece
of a larger one. torch's `grid_sample` needs a float32 copy first and took ten times as much processor time (6 million
coordinates: 0.2 s of one core, against 0.02 s). On other devices torch interpolates, and numba is not imported.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import grid_sample

from emsuite.augment.sampling_grid import SamplingGrid
from emsuite.common.arrays import to_device


def linear(source: torch.Tensor, grid: SamplingGrid, out: torch.Tensor) -> None:
    """Interpolate `source` (Z, Y, X) of any type at the coordinates of `grid`, into `out` float32."""
    if source.device.type != "cpu":
        linear_torch(source, grid, out)
        return
    from emsuite.augment.interpolate_loops import linear_loop

    memory, strides = _memory(source)
    sections = out.view(len(out), -1).numpy()
    corner_index = np.empty(sections.shape[1], _index_type(memory))
    linear_loop(memory, tuple(source.shape), strides, _arrays(grid), corner_index, sections)


def nearest(sources: Sequence[torch.Tensor], grid: SamplingGrid, outs: Sequence[torch.Tensor]) -> None:
    """Read the voxels of `sources` (Z, Y, X) that are nearest to the coordinates of `grid`, into `outs`.

    All sources have one shape. Half-way between two voxels, the one with the higher index counts.
    """
    if sources[0].device.type != "cpu":
        nearest_torch(sources, grid, outs)
        return
    from emsuite.augment.interpolate_loops import gather, nearest_index

    index_by_strides: dict[tuple[int, int], np.ndarray] = {}
    for source, out in zip(sources, outs, strict=True):
        memory, strides = _memory(source)
        one_value = memory.size == 1  # one number that is expanded to a whole volume
        if one_value:
            strides = next(iter(index_by_strides), strides)
        if strides not in index_by_strides:
            index_by_strides[strides] = np.empty((len(out), out[0].numel()), _index_type(memory))
            nearest_index(tuple(source.shape), strides, _arrays(grid), index_by_strides[strides])
        index = index_by_strides[strides]
        if one_value:
            np.multiply(index >= 0, memory[0], out=out.view(len(out), -1).numpy())
        else:
            gather(memory, index.ravel(), out.view(-1).numpy())


def linear_torch(source: torch.Tensor, grid: SamplingGrid, out: torch.Tensor) -> None:
    """Do the same as `linear`, on any device. Copies the source as float32."""
    # `grid_sample` counts from -1 at the volume's near faces to 1 at its far faces, and wants x y z
    numbers = torch.tensor([[2 / size for size in source.shape], [1 / size - 1 for size in source.shape]])
    factor, shift = to_device(numbers, source.device)[..., None, None, None]
    coordinates = grid.dense().mul_(factor).add_(shift).flip(0).movedim(0, -1)
    values = grid_sample(source.float()[None, None], coordinates[None], align_corners=False)
    out.copy_(values[0, 0])


def nearest_torch(sources: Sequence[torch.Tensor], grid: SamplingGrid, outs: Sequence[torch.Tensor]) -> None:
    """Do the same as `nearest`, on any device."""
    index = grid.dense().add_(0.5).floor_().long()
    last = to_device(torch.tensor(sources[0].shape) - 1, index.device)[:, None, None, None]
    nearest_inside = index.clamp(min=0).minimum(last)
    inside = (index == nearest_inside).all(0)
    for source, out in zip(sources, outs, strict=True):
        torch.mul(source[tuple(nearest_inside)], inside, out=out)


def _arrays(grid: SamplingGrid) -> tuple[np.ndarray, ...]:
    tensors = (*grid.axis_terms, grid.section_vectors, grid.weights_y, grid.weights_x)
    return tuple(tensor.numpy() for tensor in tensors)


def _memory(source: torch.Tensor) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the memory from the first to the last voxel as a flat array, and the strides of sections and of rows."""
    if source.stride(2) != 1 and any(source.stride()):
        source = source.contiguous()
    span = 1 + sum((n - 1) * s for n, s in zip(source.shape, source.stride(), strict=True))
    return source.as_strided((span,), (1,)).numpy(), (source.stride(0), source.stride(1))


def _index_type(memory: np.ndarray) -> type[np.integer]:
    return np.int32 if memory.size < 2**31 else np.int64  # one vector instruction handles twice as many narrow ones
