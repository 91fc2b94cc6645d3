"""The boundary between neurons, grown into their labels, and the pieces that it leaves."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from emsuite.common.arrays import Array, as_tensor, label_tensor, like_input_labels
from emsuite.common.errors import BadInput
from emsuite.common.settings import Settings


class GrowBoundary(Settings):
    """Labels at a contact become 0, so that every contact has a width."""

    steps: PositiveInt = 1
    in_plane: bool = Field(description="grow within sections (y, x) alone")


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
    known = None if mask is None else as_tensor(mask) != 0
    if known is not None and known.shape != value.shape:
        raise BadInput(f"labels {tuple(value.shape)} and mask {tuple(known.shape)}: expected the same shape")
    grow = _grow_with_loops if value.device.type == "cpu" else grow_with_torch
    return like_input_labels(labels, grow(value, steps, in_plane, known))


def grow_with_torch(value: Tensor, steps: int, in_plane: bool, known: Tensor | None) -> Tensor:
    """The labels that are left, of signed integers (..., Y, X) of which all, or where `known` (bool), are known."""
    lowest, highest = value, value
    if known is not None:
        # products with 0 and 1 are exact, and several times faster than `masked_fill`
        limits, counts = torch.iinfo(value.dtype), known.view(torch.uint8).to(value.dtype)
        lowest, highest = (value * counts + (1 - counts) * extreme for extreme in (limits.max, limits.min))
    axes = range(value.ndim - (2 if in_plane else min(3, value.ndim)), value.ndim)
    for _ in range(steps):
        lowest = _spread(lowest, torch.minimum, axes)
        highest = _spread(highest, torch.maximum, axes)
    # where no label is known within reach, the lowest is higher than the highest
    one = lowest >= highest
    one &= (lowest | highest) != 0
    return value * one.view(torch.uint8).to(value.dtype)


def _grow_with_loops(value: Tensor, steps: int, in_plane: bool, known: Tensor | None) -> Tensor:
    from emsuite.targets.loops import keep, only_known, spread_lowest

    volumes = value.contiguous().view(-1, *(1,) * (3 - value.ndim), *value.shape[-3:]).numpy()
    result = torch.empty(volumes.shape, dtype=value.dtype)
    counts = None if known is None else known.contiguous().view(torch.uint8).view(len(volumes), -1).numpy()
    most = np.iinfo(volumes.dtype).max
    for number, (labels, left) in enumerate(zip(volumes, result.numpy(), strict=True)):
        lowest = []
        for values in (labels, ~labels):  # ~ turns the order round: what is lowest of these is the highest label
            if counts is not None:
                given, values = values, np.empty_like(values)
                only_known(given.ravel(), counts[number], volumes.dtype.type(most), values.ravel())
            for _ in range(steps):
                before, values = values, np.empty_like(values)
                spread_lowest(before, in_plane, values)
            lowest.append(values.ravel())
        keep(labels.ravel(), lowest[0], ~lowest[1], left.ravel())
    return result.view(value.shape)


def connected_components(labels: Array) -> Array:
    """Number the connected pieces of each label anew, 1 to n; 0, and pieces of one voxel, become 0.

    labels: integers (Z, Y, X) or (Y, X) -> the same type and device. Pieces connect through voxel faces. As
    gunpowder's RenumberConnectedComponents, whose malis also drops single voxels; its numbers go by size, these do
    not. Labels on a GPU make a round trip through the host.
    """
    import cc3d

    voxels = label_tensor(labels).cpu().numpy()
    pieces = cc3d.connected_components(voxels, connectivity=6 if voxels.ndim == 3 else 4, out_dtype=np.uint32)
    size = np.bincount(pieces.ravel())
    kept = size > 1
    kept[0] = False
    number = np.where(kept, np.cumsum(kept), 0)
    renumbered = torch.from_numpy(number[pieces])
    if isinstance(labels, Tensor):
        return renumbered.to(labels.device, labels.dtype)
    return renumbered.numpy().astype(labels.dtype)


def _spread(value: Tensor, extreme: Callable[..., Tensor], axes: Sequence[int]) -> Tensor:
    """The `extreme` of every voxel and its neighbours along `axes`."""
    seen = value.clone()
    for axis in axes:
        length = value.shape[axis] - 1
        for here, there in ((0, 1), (1, 0)):
            part = seen.narrow(axis, here, length)
            extreme(part, value.narrow(axis, there, length), out=part)
    return seen
