"""Affinities: does a voxel belong to the same neuron as the voxel at an offset from it?

    offset (0, -1)          affinity[c, x] relates the voxel x and x + offset[c]
    [1 1 0 2 2]  ->  [0 1 0 0 1]

The convention of malis and gunpowder (`seg_to_affgraph`, https://github.com/TuragaLab/malis).
"""

from collections.abc import Sequence

import torch

from emsuite.errors import BadInput
from emsuite.tensors import Array, Index, as_given, label_tensor


def affinities(labels: Array, neighborhood: Sequence[Sequence[int]]) -> Array:
    """1 where a voxel and its partner carry the same label, not 0.

    labels: integers (..., Z, Y, X), or (..., Y, X) with 2-D offsets. neighborhood: one offset in voxels per channel.
    -> uint8 {0, 1} (..., C, Z, Y, X), on the labels' device. A voxel whose partner lies outside the array gets 0:
    give labels that reach farther than the affinities wanted, and crop. Raises BadInput on labels that are no
    integers and on offsets that do not suit them.
    """
    return as_given(labels, _related(label_tensor(labels), neighborhood))


def affinities_mask(mask: Array, neighborhood: Sequence[Sequence[int]]) -> Array:
    """1 where a voxel and its partner are both masked in (not 0): axes, type and edges as `affinities`."""
    return affinities(mask != 0, neighborhood)


def partners(offset: Sequence[int], shape: Sequence[int]) -> tuple[Index, Index]:
    """Index of all voxels that have a partner at `offset` inside `shape`, and the index of those partners."""
    here = tuple(
        slice(max(0, -step), max(0, length - max(0, step))) for step, length in zip(offset, shape, strict=True)
    )
    there = tuple(
        slice(max(0, step), max(0, length - max(0, -step))) for step, length in zip(offset, shape, strict=True)
    )
    return (..., *here), (..., *there)


def _related(seen: torch.Tensor, neighborhood: Sequence[Sequence[int]]) -> torch.Tensor:
    offsets = _offsets(neighborhood, seen.ndim)
    dims = len(offsets[0])
    result = torch.zeros((len(offsets), *seen.shape), dtype=torch.uint8, device=seen.device)
    for channel, offset in zip(result, offsets, strict=True):
        here, there = partners(offset, seen.shape[-dims:])
        channel[here] = (seen[here] == seen[there]) & (seen[here] != 0)
    return result.movedim(0, -dims - 1)


def _offsets(neighborhood: Sequence[Sequence[int]], dims: int) -> list[tuple[int, ...]]:
    offsets = [tuple(int(step) for step in offset) for offset in neighborhood]
    lengths = {len(offset) for offset in offsets}
    if lengths not in ({2}, {3}) or max(lengths) > dims:
        raise BadInput(f"neighborhood {offsets}: expected offsets of 2 or 3 voxels each, for labels of {dims} axes")
    return offsets
