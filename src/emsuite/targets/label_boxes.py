"""Bounding boxes of labels, and batches of boxes that share one padded shape."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from emsuite.common.arrays import to_device

_LARGEST_BATCH = 2**22  # voxels of all padded boxes of a batch: bounds the memory of a batch
_PRODUCTS_PER_START = {
    "cpu": 5_000_000,
    "cuda": 500_000_000,
}  # multiplications in the time of a start


@dataclass(frozen=True)
class BoxBatch:
    """Boxes (by index) of one padded shape: per axis, `rows` voxels to describe and `columns` voxels to sum over."""

    boxes: list[int]
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def products(self) -> int:
        """Multiplications that `moments` needs: per axis, last first, as many orders as its matrices have."""
        volume, total = math.prod(self.columns), 0
        for rows, columns, orders in zip(self.rows[::-1], self.columns[::-1], (3, 6, 10), strict=False):
            total += orders * volume * rows
            volume = volume // columns * rows
        return total * len(self.boxes)

    @property
    def voxels(self) -> int:
        """Voxels of all padded boxes."""
        return len(self.boxes) * max(math.prod(self.rows), math.prod(self.columns))

    def joined(self, other: "BoxBatch") -> "BoxBatch":
        """Return the boxes of both batches, padded to the larger shape."""
        rows = tuple(map(max, self.rows, other.rows))
        return BoxBatch(self.boxes + other.boxes, rows, tuple(map(max, self.columns, other.columns)))


def bounding_boxes(numbers: torch.Tensor, count: int, step: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the bounding box of each number in an array.

    Args:
        numbers: int64, any number of axes, each below `count`.
        count: how many boxes to return.
        step: positions are counted in units of this many voxels, rounded down.

    Returns:
        begin and end (one past the last position), int64 (count, axes); both 0 for a number that does not occur.
    """
    longest = max(-(-voxels // step) for voxels in numbers.shape)
    # One table for all axes, of the numbers that occur at each position: the host of a GPU pays for each operation.
    occurs = torch.zeros(numbers.ndim, count, longest, dtype=torch.uint8, device=numbers.device)
    positions = [np.arange(voxels) // step + axis * count * longest for axis, voxels in enumerate(numbers.shape)]
    entry = numbers * longest
    along = to_device(torch.from_numpy(np.concatenate(positions)), numbers.device).split(list(numbers.shape))
    for axis, position in enumerate(along):
        occurs.view(-1).index_fill_(0, (entry + along_axis(position, axis, numbers.ndim)).flatten(), 1)
    begin = occurs.argmax(2)
    end = torch.where(occurs.amax(2) > 0, longest - occurs.flip(2).argmax(2), 0)
    return begin.T, end.T


def batch_boxes(rows: Sequence[Sequence[int]], columns: Sequence[Sequence[int]], device: str) -> list[BoxBatch]:
    """Return batches of boxes: boxes join a batch where padding costs less time than starting another batch.

    Args:
        rows: voxels to describe, per box and axis.
        columns: voxels to sum over, per box and axis.
        device: `cpu` or `cuda`, which says how long a start takes.
    """
    per_start = _PRODUCTS_PER_START.get(device, 0)
    alone = [BoxBatch([box], tuple(r), tuple(c)) for box, (r, c) in enumerate(zip(rows, columns, strict=True))]
    batches: list[BoxBatch] = []
    for box in sorted(alone, key=lambda batch: -batch.products):
        wider = batches[-1].joined(box) if batches else box
        apart = box.products + (batches[-1].products if batches else 0)
        if batches and wider.voxels <= _LARGEST_BATCH and wider.products <= apart + per_start:
            batches[-1] = wider
        else:
            batches.append(box)
    return batches


def along_axis(values: torch.Tensor, axis: int, dims: int) -> torch.Tensor:
    """Return `values` (..., N) as (..., 1, N, 1, ...), to broadcast along `axis` of `dims` axes."""
    return values.view(*values.shape[:-1], *(-1 if other == axis else 1 for other in range(dims)))
