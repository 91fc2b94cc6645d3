"""The voxels of single segments: found in blocks as runs along x, and put together for one segment at a time.

    . . 7 7 7 .        a run: z, y, and begin and end along x, from the begin of the region
    . 7 7 7 7 7        (0, 0, 2, 5), (0, 1, 1, 6)

A segment whose box is large is put together in coarser voxels: one is the segment's if any of the voxels in it is, so
that thin processes stay whole.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

MOST_VOXELS = 2**22
"""Of a segment, as many as are put together without coarser voxels."""
MOST_BOX = 2**25
"""Voxels of a segment's box, the same."""


class Mask(NamedTuple):
    """The voxels of one segment, and where they lie."""

    inside: np.ndarray
    """(Z, Y, X) bool, with one voxel of background around it but where the region ends."""
    first: np.ndarray
    """(3,) int64, z y x: the first voxel of `inside` in coarse voxels, from the begin of the region."""
    factors: np.ndarray
    """(3,) int64, z y x: voxels along each axis of a coarse voxel."""


def find_runs(labels: np.ndarray, count: int, first: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    """Return the runs of the labels 1 to `count`.

    Args:
        labels: (Z, Y, X) uint32; 0 is background.
        count: The highest label.
        first: The position of the first voxel, z y x.

    Returns:
        For each label (N, 4) int32: z, y, begin and end along x; in the order of voxels.
    """
    new = np.ones(labels.shape, bool)
    np.not_equal(labels[..., 1:], labels[..., :-1], out=new[..., 1:])
    begins = np.flatnonzero(new)
    lengths = np.diff(begins, append=labels.size)
    named = labels.reshape(-1)[begins]
    order = np.argsort(named, kind="stable")
    z, y, x = np.unravel_index(begins[order], labels.shape)
    runs = np.stack([z + first[0], y + first[1], x + first[2], x + first[2] + lengths[order]], axis=1)
    parts = np.searchsorted(named[order], np.arange(1, count + 2))
    return [runs[begin:end].astype(np.int32) for begin, end in pairwise(parts)]


def coarsening(voxels: int, box: Sequence[int] | np.ndarray, voxel_size: Sequence[float]) -> np.ndarray:
    """Return how many voxels a coarse voxel has along each axis: the shortest sides are doubled until all fits.

    Args:
        voxels: The number of the segment's voxels.
        box: The voxels of its box along each axis.
        voxel_size: nm, in the order of `box`.
    """
    factors = np.ones(len(box), np.int64)
    sides, size = np.asarray(box, np.float64), np.asarray(voxel_size, np.float64)
    while voxels / factors.prod() > MOST_VOXELS or math.prod(np.ceil(sides / factors)) > MOST_BOX:
        now = size * factors
        factors[now < 1.5 * now.min()] *= 2
    return factors


def paint(
    runs: Iterable[np.ndarray], low: np.ndarray, high: np.ndarray, shape: np.ndarray, factors: np.ndarray
) -> Mask:
    """Return the voxels of a segment.

    Args:
        runs: Of each block, see `find_runs`.
        low: The first voxel of the segment's box, z y x, from the begin of the region.
        high: Behind the last voxel of its box.
        shape: The voxels of the region along each axis.
        factors: From `coarsening`.
    """
    first = low // factors - (low > 0)
    end = -(-high // factors) + (high < shape)
    inside = np.zeros(end - first, bool)
    for part in runs:
        if len(part):
            _paint_block(inside, part // factors[[0, 1, 2, 2]], (part[:, 3] - 1) // factors[2] + 1, first)
    return Mask(inside, first, factors)


def _paint_block(inside: np.ndarray, runs: np.ndarray, ends: np.ndarray, first: np.ndarray) -> None:
    """Set the voxels of coarse runs: +1 where one begins, -1 where it ends, and their sum along x."""
    places = np.stack([runs[:, 0], runs[:, 1], runs[:, 2]], axis=1) - first
    ends = ends - first[2]
    low, high = places.min(axis=0), places.max(axis=0) + 1
    high[2] = ends.max()
    steps = np.zeros(high - low + [0, 0, 1], np.int32)
    rows = (places[:, 0] - low[0]) * steps.shape[1] + places[:, 1] - low[1]
    flat = steps.reshape(-1)
    np.add.at(flat, rows * steps.shape[2] + places[:, 2] - low[2], 1)
    np.add.at(flat, rows * steps.shape[2] + ends - low[2], -1)
    np.cumsum(steps, axis=2, out=steps)
    inside[tuple(map(slice, low, high))] |= steps[..., :-1] > 0
