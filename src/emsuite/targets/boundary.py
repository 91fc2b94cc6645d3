"""The boundary between neurons, grown into their labels, and the connected components between boundaries."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from emsuite.common.arrays import Array, as_tensor, label_tensor, like_input_labels
from emsuite.common.errors import BadInput
from emsuite.common.settings import Settings


class GrowBoundary(Settings):
    """Labels near a contact become 0, so that every boundary has a width."""

    steps: PositiveInt = Field(1, le=100)
    in_plane: bool = Field(description="grow within sections (y, x) alone")
    region: Literal["context", "output"] = Field(
        "context",
        description="context: in all labels that are read; output: where the originals read the labels mask, in the "
        "output and as far around it as its masked affinities reach",
    )
    masked: bool = Field(
        True,
        description="no boundary grows at the border of the labels mask; false: it grows there, from background",
    )


def grow_boundary(labels: Array, steps: int = 1, in_plane: bool = False, mask: Array | None = None) -> Array:
    """Set labels to 0 within `steps` voxels of another label or of 0, as gunpowder's GrowBoundary does.

    The labels mask itself does not change: a boundary voxel is annotated background, its affinities are 0 and count.
    gunpowder erodes each label on its own. Here one pass serves all labels: a voxel keeps its label if all masked-in
    voxels within reach carry this label, not 0.

    Args:
        labels: integers (..., Z, Y, X) or (Y, X); 0 is background.
        steps: distance in voxels, counted along the axes (steps of a cross).
        in_plane: grow in y and x alone.
        mask: of the same shape, 0 where nobody labelled. Neither masked-out voxels nor the border of the array form a
            boundary: a masked-out voxel counts as the label next to it.

    Returns:
        a copy of the labels, same type.

    Raises:
        BadInput: labels are no integers, or the mask has another shape.
    """
    value = label_tensor(labels)
    inside = None if mask is None else as_tensor(mask) != 0
    if inside is not None and inside.shape != value.shape:
        raise BadInput(f"labels {tuple(value.shape)} and mask {tuple(inside.shape)}: expected the same shape")
    grow = _grow_with_loops if value.device.type == "cpu" else grow_with_torch
    return like_input_labels(labels, grow(value, steps, in_plane, inside))


def grow_with_torch(value: Tensor, steps: int, in_plane: bool, inside: Tensor | None) -> Tensor:
    """Return the labels with a grown boundary, by torch alone; `value` is (..., Y, X) signed, `inside` bool or None."""
    lowest, highest = value, value
    if inside is not None:
        # Products with 0 and 1 are exact, and several times faster than `masked_fill`.
        limits, counts = torch.iinfo(value.dtype), inside.view(torch.uint8).to(value.dtype)
        lowest, highest = (value * counts + (1 - counts) * extreme for extreme in (limits.max, limits.min))
    axes = range(value.ndim - (2 if in_plane else min(3, value.ndim)), value.ndim)
    for _ in range(steps):
        lowest = _spread(lowest, torch.minimum, axes)
        highest = _spread(highest, torch.maximum, axes)
    # Where no masked-in voxel lies within reach, the lowest is higher than the highest.
    is_kept = lowest >= highest
    is_kept &= (lowest | highest) != 0
    return value * is_kept.view(torch.uint8).to(value.dtype)


def _grow_with_loops(value: Tensor, steps: int, in_plane: bool, inside: Tensor | None) -> Tensor:
    from emsuite.targets.loops import fill_unmasked_loop, grow_boundary_loop, spread_lowest_loop

    volumes = value.contiguous().view(-1, *(1,) * (3 - value.ndim), *value.shape[-3:]).numpy()
    result = torch.empty(volumes.shape, dtype=value.dtype)
    counts = None if inside is None else inside.contiguous().view(torch.uint8).view(len(volumes), -1).numpy()
    most = np.iinfo(volumes.dtype).max
    for number, (labels, left) in enumerate(zip(volumes, result.numpy(), strict=True)):
        lowest = []
        for values in (labels, ~labels):  # ~ reverses the order: the lowest of ~labels is the highest label
            if counts is not None:
                labelled, values = values, np.empty_like(values)
                fill_unmasked_loop(labelled.ravel(), counts[number], volumes.dtype.type(most), values.ravel())
            for _ in range(steps):
                before, values = values, np.empty_like(values)
                spread_lowest_loop(before, in_plane, values)
            lowest.append(values.ravel())
        grow_boundary_loop(labels.ravel(), lowest[0], ~lowest[1], left.ravel())
    return result.view(value.shape)


def connected_components(labels: Array) -> Array:
    """Give each connected component a label of its own, 1 to n; components of one voxel become 0.

    Components connect through voxel faces. gunpowder's RenumberConnectedComponents does the same, and its malis also
    drops single voxels; it numbers by size, this function does not. Labels on a GPU go through the host.

    Args:
        labels: integers (Z, Y, X) or (Y, X); 0 is background.

    Returns:
        the same type, shape and device.
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
    """Return the `extreme` of each voxel and its neighbours along `axes`."""
    spread = value.clone()
    for axis in axes:
        length = value.shape[axis] - 1
        for begin, neighbour in ((0, 1), (1, 0)):
            part = spread.narrow(axis, begin, length)
            extreme(part, value.narrow(axis, neighbour, length), out=part)
    return spread
