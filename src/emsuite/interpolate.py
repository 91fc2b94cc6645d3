"""Values of a volume between its voxels: linear, or of the nearest voxel; 0 outside.

On the CPU loops compiled by numba (`interpolate_loops`), which read the volume as it is stored, be it a piece of a
larger one: torch's `grid_sample` wants it as float32 first and took ten times as much processor time (6 million places:
0.2 s of one core, against 0.02 s). Elsewhere torch, and no numba.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import grid_sample

_TOGETHER = 4096  # places whose weights stay in the processor's first cache


def linear(source: torch.Tensor, places: torch.Tensor, out: torch.Tensor) -> None:
    """`source` (Z, Y, X), any type, at `places` (3, ...) float32 voxels, into `out` (...) float32."""
    if source.device.type == "cpu":
        from emsuite.interpolate_loops import linear_loop

        memory, strides = _memory(source)
        first, weights = np.empty(_TOGETHER, _index_type(memory)), np.empty((3, _TOGETHER), np.float32)
        linear_loop(
            memory, tuple(source.shape), strides, places.flatten(1).numpy(), first, weights, out.view(-1).numpy()
        )
    else:
        linear_torch(source, places, out)


def nearest(sources: Sequence[torch.Tensor], places: torch.Tensor, outs: Sequence[torch.Tensor]) -> None:
    """`sources` (Z, Y, X) on one grid at the voxels nearest to `places` (3, ...), into `outs` (...).

    Half-way between voxels, the higher index.
    """
    if sources[0].device.type != "cpu":
        nearest_torch(sources, places, outs)
        return
    from emsuite.interpolate_loops import gather, nearest_index

    indices: dict[tuple[int, int], np.ndarray] = {}
    for source, out in zip(sources, outs, strict=True):
        memory, strides = _memory(source)
        if strides not in indices:
            indices[strides] = np.empty(out.numel(), _index_type(memory))
            nearest_index(tuple(source.shape), strides, places.flatten(1).numpy(), indices[strides])
        gather(memory, indices[strides], out.view(-1).numpy())


def linear_torch(source: torch.Tensor, places: torch.Tensor, out: torch.Tensor) -> None:
    """As `linear`, on any device; the source is copied as float32."""
    grid = torch.stack([(2 * place + 1) / size - 1 for place, size in zip(places, source.shape, strict=True)][::-1], -1)
    values = grid_sample(source.float()[None, None], grid.view(1, -1, 1, 1, 3), align_corners=False)
    out.copy_(values.view(out.shape))


def nearest_torch(sources: Sequence[torch.Tensor], places: torch.Tensor, outs: Sequence[torch.Tensor]) -> None:
    """As `nearest`, on any device."""
    index = (places + 0.5).floor().long()
    inside = torch.ones_like(index[0], dtype=torch.bool)
    for along, size in zip(index, sources[0].shape, strict=True):
        inside &= (along >= 0) & (along < size)
        along.clamp_(0, size - 1)
    for source, out in zip(sources, outs, strict=True):
        torch.mul(source[tuple(index)], inside, out=out)


def _memory(source: torch.Tensor) -> tuple[np.ndarray, tuple[int, int]]:
    """What lies in memory from the first to the last voxel, and the distance from section to section, row to row."""
    if source.stride(2) != 1:
        source = source.contiguous()
    span = 1 + sum((n - 1) * s for n, s in zip(source.shape, source.stride(), strict=True))
    return source.as_strided((span,), (1,)).numpy(), (source.stride(0), source.stride(1))


def _index_type(memory: np.ndarray) -> type[np.integer]:
    return np.int32 if memory.size < 2**31 else np.int64  # twice as many narrow ones are worked out at once
