"""Affinities: does a voxel belong to the same neuron as the voxel at an offset from it?

    offset (0, -1)          affinity[c, x] relates the voxel x and x + offset[c]
    [1 1 0 2 2]  ->  [0 1 0 0 1]

The convention of malis and gunpowder (`seg_to_affgraph`, https://github.com/TuragaLab/malis).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from emsuite.common.arrays import Array, as_tensor, label_tensor, like_input
from emsuite.common.device import in_pieces
from emsuite.common.errors import BadInput


def affinities(labels: Array, neighborhood: Sequence[Sequence[int]], within: Sequence[slice] | None = None) -> Array:
    """Return 1 where a voxel and the voxel at an offset from it, its partner, carry the same label, not 0.

    A voxel whose partner lies outside the array gets 0. Give labels that extend beyond `within` by the offsets to avoid
    that.

    Args:
        labels: integers (..., Z, Y, X), or (..., Y, X) with 2-D offsets; 0 is background.
        neighborhood: one offset in voxels per channel.
        within: compute these voxels alone, a slice per axis of the offsets.

    Returns:
        uint8 {0, 1} (..., C, Z, Y, X), on the labels' device.

    Raises:
        BadInput: labels are no integers, or offsets do not fit their axes.
    """
    voxels = label_tensor(labels)

    def same_neuron(voxel: torch.Tensor, partner: torch.Tensor, out: torch.Tensor) -> None:
        torch.eq(voxel, partner, out=out).bitwise_and_(voxel != 0)

    related = _pairs(voxels, neighborhood, within, same_neuron)
    return like_input(labels, related.view(torch.uint8).movedim(0, -_dims(neighborhood) - 1))


def affinity_targets(
    labels: torch.Tensor, neighborhood: Sequence[Sequence[int]], within: Sequence[slice]
) -> torch.Tensor:
    """Return `affinities` as float32 (B, C, Z, Y, X), as networks learn them, of int32 labels (B, Z, Y, X)."""
    around = labels.shape[1:]
    parts = [part.indices(length)[:2] for part, length in zip(within, around, strict=True)]
    inside = all(
        begin + step >= 0 and end + step <= length
        for offset in neighborhood
        for (begin, end), step, length in zip(parts, offset, around, strict=True)
    )
    if labels.device.type != "cpu" or not inside:
        return affinities(labels, neighborhood, within).float()
    from emsuite.targets.loops import affinity_loop

    begin, shape = tuple(begin for begin, _ in parts), [end - begin for begin, end in parts]
    shifts = np.array(neighborhood) @ [around[1] * around[2], around[2], 1]
    result = torch.empty((len(labels), len(neighborhood), *shape), dtype=torch.float32)
    for sample, out in zip(labels.contiguous(), result, strict=True):
        affinity_loop(sample.view(-1).numpy(), tuple(around), begin, shifts, out.numpy())
    return result


def affinities_mask(mask: Array, neighborhood: Sequence[Sequence[int]], within: Sequence[slice] | None = None) -> Array:
    """Return 1 where the mask is not 0 at a voxel and at its partner; axes, type and `within` as in `affinities`."""
    both = _pairs(as_tensor(mask) != 0, neighborhood, within, torch.bitwise_and)
    return like_input(mask, both.view(torch.uint8).movedim(0, -_dims(neighborhood) - 1))


def _pairs(
    values: torch.Tensor,
    neighborhood: Sequence[Sequence[int]],
    within: Sequence[slice] | None,
    compare: Callable[..., object],
) -> torch.Tensor:
    """Return `compare` of each voxel and its partner, False without a partner: bool (C, ..., Z, Y, X)."""
    dims = _dims(neighborhood)
    if dims > values.ndim:
        raise BadInput(
            f"neighborhood {neighborhood}: expected offsets of 2 voxels each, for labels of {values.ndim} axes"
        )
    around = values.shape[-dims:]
    bounds = [part.indices(length)[:2] for part, length in zip(within or [slice(None)] * dims, around, strict=True)]
    shape = [end - begin for begin, end in bounds]
    result = torch.zeros((len(neighborhood), *values.shape[:-dims], *shape), dtype=torch.bool, device=values.device)

    def fill(number: int) -> None:
        channel, voxel, partner = result[number], values, values
        for axis, ((begin, end), step) in enumerate(zip(bounds, neighborhood[number], strict=True), start=-dims):
            low = min(max(begin, -step), end)
            length = max(min(end, around[axis] - step) - low, 0)
            channel = channel.narrow(axis, low - begin, length)
            voxel = voxel.narrow(axis, low, length)
            partner = partner.narrow(axis, low + step if length else 0, length)
        compare(voxel, partner, out=channel)

    in_pieces(fill, range(len(neighborhood)), values.device)
    return result


def _dims(neighborhood: Sequence[Sequence[int]]) -> int:
    lengths = {len(offset) for offset in neighborhood}
    if lengths not in ({2}, {3}):
        raise BadInput(f"neighborhood {neighborhood}: expected offsets of 2 or 3 voxels each")
    return max(lengths)
