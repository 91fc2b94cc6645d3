"""The boundary between neurons, grown into their labels, and the pieces that it leaves."""

from collections.abc import Iterator, Sequence

import cc3d
import numpy as np
import torch

from emsuite.errors import BadInput
from emsuite.tensors import Array, Index, as_given_labels, as_tensor, label_tensor


def grow_boundary(labels: Array, steps: int = 1, in_plane: bool = False, mask: Array | None = None) -> Array:
    """Set labels to 0 within `steps` voxels of another label (or of 0), as gunpowder's GrowBoundary.

    labels: integers (..., Z, Y, X) or (Y, X) -> the same, copied. Distance is counted along the axes (steps of a
    cross), in y and x alone if `in_plane`. Neither the array's border nor what lies outside `mask` (0 there, same
    shape) makes a boundary: masked-out voxels count as whatever label stands next to them.

    The labels mask itself is left as it is: a boundary voxel is known background, its affinities are 0 and count.
    gunpowder erodes each label on its own; here one pass serves all: a voxel keeps its label if the unmasked voxels
    within reach carry one label, not 0. Raises BadInput on labels that are no integers and on a mask of another shape.
    """
    value = label_tensor(labels)
    known = torch.ones_like(value, dtype=torch.bool) if mask is None else as_tensor(mask) != 0
    if known.shape != value.shape:
        raise BadInput(f"labels {tuple(value.shape)} and mask {tuple(known.shape)}: expected the same shape")
    axes = range(-2 if in_plane else -min(3, value.ndim), 0)
    grown = value.clone()
    mixed = torch.zeros_like(known)
    for _ in range(steps):
        value, known, mixed = _look_around(value, known, mixed, axes)
    grown[mixed | (known & (value == 0))] = 0
    return as_given_labels(labels, grown)


def connected_components(labels: Array) -> Array:
    """Number the connected pieces of each label anew, 1 to n; 0, and pieces of one voxel, become 0.

    labels: integers (Z, Y, X) or (Y, X) -> the same type and device. Pieces connect through voxel faces. As
    gunpowder's RenumberConnectedComponents, whose malis also drops single voxels; its numbers go by size, these do
    not. Labels on a GPU make a round trip through the host.
    """
    voxels = label_tensor(labels).cpu().numpy()
    pieces = cc3d.connected_components(voxels, connectivity=6 if voxels.ndim == 3 else 4, out_dtype=np.uint32)
    size = np.bincount(pieces.ravel())
    kept = size > 1
    kept[0] = False
    number = np.where(kept, np.cumsum(kept), 0)
    renumbered = torch.from_numpy(number[pieces])
    if isinstance(labels, torch.Tensor):
        return renumbered.to(labels.device, labels.dtype)
    return renumbered.numpy().astype(labels.dtype)


def _look_around(
    value: torch.Tensor, known: torch.Tensor, mixed: torch.Tensor, axes: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What is seen one voxel farther: a known label in reach, is one in reach, are there several?"""
    seen, is_known, is_mixed = value.clone(), known.clone(), mixed.clone()
    for here, there in _neighbors(axes):
        differ = is_known[here] & known[there] & (seen[here] != value[there])
        is_mixed[here] |= mixed[there] | differ
        seen[here] = torch.where(is_known[here], seen[here], value[there])
        is_known[here] |= known[there]
    return seen, is_known, is_mixed


def _neighbors(axes: Sequence[int]) -> Iterator[tuple[Index, Index]]:
    for axis in axes:
        behind = [slice(None)] * (-axis - 1)
        first: Index = (..., slice(None, -1), *behind)
        last: Index = (..., slice(1, None), *behind)
        yield first, last
        yield last, first
