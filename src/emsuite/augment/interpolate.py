"""Values of a volume between its voxels: linear, or of the nearest voxel; 0 outside.

On the CPU loops compiled by numba (`interpolate_loops`), which read the volume as it is stored, be it a piece of a
larger one: torch's `grid_sample` wants it as float32 first and took ten times as much processor time (6 million places:
0.2 s of one core, against 0.02 s). Elsewhere torch, and no numba.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import grid_sample

from emsuite.augment.sampling_grid import SamplingGrid
from emsuite.common.arrays import to_device


def linear(source: torch.Tensor, places: SamplingGrid, out: torch.Tensor) -> None:
    """`source` (Z, Y, X), any type, at `places`, into `out` float32."""
    if source.device.type != "cpu":
        linear_torch(source, places, out)
        return
    from emsuite.augment.interpolate_loops import linear_loop

    memory, strides = _memory(source)
    sections = out.view(len(out), -1).numpy()
    room = np.empty(sections.shape[1], _index_type(memory))
    linear_loop(memory, tuple(source.shape), strides, _arrays(places), room, sections)


def nearest(sources: Sequence[torch.Tensor], places: SamplingGrid, outs: Sequence[torch.Tensor]) -> None:
    """`sources` (Z, Y, X) on one grid at the voxels nearest to `places`, into `outs`; half-way, the higher index."""
    if sources[0].device.type != "cpu":
        nearest_torch(sources, places, outs)
        return
    from emsuite.augment.interpolate_loops import gather, nearest_index

    indices: dict[tuple[int, int], np.ndarray] = {}
    for source, out in zip(sources, outs, strict=True):
        memory, strides = _memory(source)
        one_value = memory.size == 1
        grid = next(iter(indices), strides) if one_value else strides
        if grid not in indices:
            indices[grid] = np.empty((len(out), out[0].numel()), _index_type(memory))
            nearest_index(tuple(source.shape), grid, _arrays(places), indices[grid])
        if one_value:  # all that matters is what lies inside
            np.multiply(indices[grid] >= 0, memory[0], out=out.view(len(out), -1).numpy())
        else:
            gather(memory, indices[grid].ravel(), out.view(-1).numpy())


def linear_torch(source: torch.Tensor, places: SamplingGrid, out: torch.Tensor) -> None:
    """As `linear`, on any device; the source is copied as float32."""
    # from voxels to -1 at the volume's near faces and 1 at its far ones, x y z last
    numbers = torch.tensor([[2 / size for size in source.shape], [1 / size - 1 for size in source.shape]])
    factor, shift = to_device(numbers, source.device)[..., None, None, None]
    grid = places.dense().mul_(factor).add_(shift).flip(0).movedim(0, -1)
    values = grid_sample(source.float()[None, None], grid[None], align_corners=False)
    out.copy_(values[0, 0])


def nearest_torch(sources: Sequence[torch.Tensor], places: SamplingGrid, outs: Sequence[torch.Tensor]) -> None:
    """As `nearest`, on any device."""
    index = places.dense().add_(0.5).floor_().long()
    last = to_device(torch.tensor(sources[0].shape) - 1, index.device)[:, None, None, None]
    nearest_inside = index.clamp(min=0).minimum(last)
    inside = (index == nearest_inside).all(0)
    for source, out in zip(sources, outs, strict=True):
        torch.mul(source[tuple(nearest_inside)], inside, out=out)


def _arrays(places: SamplingGrid) -> tuple[np.ndarray, ...]:
    return tuple(tensor.numpy() for tensor in (*places.axes, places.planes, places.weights_y, places.weights_x))


def _memory(source: torch.Tensor) -> tuple[np.ndarray, tuple[int, int]]:
    """What lies in memory from the first to the last voxel, and the distance from section to section, row to row."""
    if source.stride(2) != 1 and any(source.stride()):
        source = source.contiguous()
    span = 1 + sum((n - 1) * s for n, s in zip(source.shape, source.stride(), strict=True))
    return source.as_strided((span,), (1,)).numpy(), (source.stride(0), source.stride(1))


def _index_type(memory: np.ndarray) -> type[np.integer]:
    return np.int32 if memory.size < 2**31 else np.int64  # twice as many narrow ones are worked out at once
