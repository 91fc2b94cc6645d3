"""Bounding boxes of labels, and groups of boxes that are worth treating as one batch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from emsuite.common.arrays import to_device

_LARGEST_BATCH = 2**22  # voxels of all padded boxes of a group: bounds the memory that a group takes
_PRODUCTS_PER_START = {"cpu": 5_000_000, "cuda": 500_000_000}  # multiplications in the time that a batch takes to start


@dataclass(frozen=True)
class Group:
    """Boxes (by index) that share one padded shape: `rows` voxels wanted and `columns` summed over, per axis."""

    boxes: list[int]
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def products(self) -> int:
        """Multiplications that `moments` takes: per axis, last first, as many orders as its matrices have."""
        volume, total = math.prod(self.columns), 0
        for rows, columns, orders in zip(self.rows[::-1], self.columns[::-1], (3, 6, 10), strict=False):
            total += orders * volume * rows
            volume = volume // columns * rows
        return total * len(self.boxes)

    @property
    def voxels(self) -> int:
        """Voxels of all its padded boxes."""
        return len(self.boxes) * max(math.prod(self.rows), math.prod(self.columns))

    def joined(self, other: "Group") -> "Group":
        """Both groups' boxes, padded to what the largest needs."""
        rows = tuple(map(max, self.rows, other.rows))
        return Group(self.boxes + other.boxes, rows, tuple(map(max, self.columns, other.columns)))


def bounding_boxes(numbers: torch.Tensor, count: int, step: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """First place, and one past the last, of each number below `count` in `numbers` int64; places are voxels // `step`.

    -> two int64 (count, axes); both 0 for a number that is not there.
    """
    longest = max(-(-voxels // step) for voxels in numbers.shape)
    # which places of each axis hold which number; one table for all axes, since a GPU's host pays for each operation
    there = torch.zeros(numbers.ndim, count, longest, dtype=torch.uint8, device=numbers.device)
    places = [np.arange(voxels) // step + axis * count * longest for axis, voxels in enumerate(numbers.shape)]
    entry = numbers * longest
    along = to_device(torch.from_numpy(np.concatenate(places)), numbers.device).split(list(numbers.shape))
    for axis, place in enumerate(along):
        there.view(-1).index_fill_(0, (entry + along_axis(place, axis, numbers.ndim)).flatten(), 1)
    begin = there.argmax(2)
    end = torch.where(there.amax(2) > 0, longest - there.flip(2).argmax(2), 0)
    return begin.T, end.T


def group_boxes(rows: Sequence[Sequence[int]], columns: Sequence[Sequence[int]], device: str) -> list[Group]:
    """Boxes of `rows` wanted and `columns` summed over, in groups: boxes join where padding costs less than a start."""
    per_start = _PRODUCTS_PER_START.get(device, 0)
    alone = [Group([box], tuple(r), tuple(c)) for box, (r, c) in enumerate(zip(rows, columns, strict=True))]
    groups: list[Group] = []
    for box in sorted(alone, key=lambda group: -group.products):
        wider = groups[-1].joined(box) if groups else box
        apart = box.products + (groups[-1].products if groups else 0)
        if groups and wider.voxels <= _LARGEST_BATCH and wider.products <= apart + per_start:
            groups[-1] = wider
        else:
            groups.append(box)
    return groups


def along_axis(values: torch.Tensor, axis: int, dims: int) -> torch.Tensor:
    """(..., N) `values` as (..., 1, N, 1, ...), to be broadcast along `axis` of `dims` axes."""
    return values.view(*values.shape[:-1], *(-1 if other == axis else 1 for other in range(dims)))
