"""The sparse contingency table of a segmentation and its ground truth: the input of all region scores.

    segment  label  voxels        sorted by segment, then label; pairs that share no voxel are not stored,
        0      7       12         nor are voxels of label 0 (not annotated)
        3      7      640
        3      9       81

The tables of blocks add up to the table of the volume (`merge_tables`). All sums are of integers, so that blocks give
exactly the table of the whole volume. The table of fragments becomes the table of any agglomeration of them
(`Contingency.map`), so that a sweep of thresholds reads the voxels once.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.io.relabel import relabel

_PART = 2**20  # voxels counted at a time: few enough to stay in the processor's caches


class RegionSizes(NamedTuple):
    """The regions (segments or labels) of a table.

    `ids` (uint64) ascend, `voxels` (int64) are their sizes. `inverse` (int64) holds the index in `ids` of each pair's
    region, so that `ids[inverse]` is the table's column.
    """

    ids: np.ndarray
    voxels: np.ndarray
    inverse: np.ndarray


@dataclass(frozen=True)
class Contingency:
    """The number of voxels (`counts`, int64) that each pair of a segment and a label (uint64, label not 0) shares."""

    segments: np.ndarray
    labels: np.ndarray
    counts: np.ndarray

    @cached_property
    def voxels(self) -> int:
        """The number of voxels with a label."""
        return int(self.counts.sum())

    @cached_property
    def by_segment(self) -> RegionSizes:
        """The segments and their sizes within the labels; with segment 0 if labelled voxels lie in no segment."""
        starts = _run_starts(self.segments)
        inverse = np.repeat(np.arange(starts.size), np.diff(starts, append=self.segments.size))
        return _region_sizes(self.segments[starts], inverse, self.counts)

    @cached_property
    def by_label(self) -> RegionSizes:
        """The labels and their sizes."""
        return _region_sizes(*np.unique(self.labels, return_inverse=True), self.counts)

    @cached_property
    def main_label(self) -> np.ndarray:
        """The label that shares most voxels with each of `by_segment.ids`; among equals the one with the larger id."""
        return self.labels[np.lexsort((self.labels, self.counts, self.segments))][self._last_of(self.by_segment)]

    @cached_property
    def main_segment(self) -> np.ndarray:
        """The segment that shares most voxels with each of `by_label.ids`; 0 only if no other segment overlaps it."""
        order = np.lexsort((self.segments, self.counts, self.segments != 0, self.labels))
        return self.segments[order][self._last_of(self.by_label)]

    def map(self, fragments: np.ndarray, segments: np.ndarray) -> "Contingency":
        """Return the table after each of `fragments` became its one of `segments`; 0 stays 0.

        Raises BadInput if the table holds a fragment that is not among `fragments`.
        """
        return self.relabelled(relabel(self.by_segment.ids, fragments, segments))

    def relabelled(self, ids: np.ndarray) -> "Contingency":
        """Return the table after each of `by_segment.ids` became the id at the same index of `ids` (uint64)."""
        return _summed(ids[self.by_segment.inverse], self.labels, self.counts)

    @staticmethod
    def _last_of(regions: RegionSizes) -> np.ndarray:
        # the last pair of each region, once the pairs are sorted by region
        return np.cumsum(np.bincount(regions.inverse, minlength=regions.ids.size)) - 1


def contingency(segmentation: np.ndarray, labels: np.ndarray) -> Contingency:
    """Count the pairs of ids in a segmentation and its ground truth.

    Args:
        segmentation: Integer ids from 0 up, any number of axes.
        labels: Integer ids of the same shape; label 0 is left out.

    Raises:
        BadInput: The arrays differ in shape, or hold no integers, or an id below 0.
    """
    segmentation, labels = np.asarray(segmentation), np.asarray(labels)
    if segmentation.shape != labels.shape:
        raise BadInput(f"segmentation {segmentation.shape} and labels {labels.shape} differ in shape")
    a, b = ids_of("segmentation", segmentation), ids_of("labels", labels)
    return merge_tables(_count(a[start : start + _PART], b[start : start + _PART]) for start in range(0, a.size, _PART))


def merge_tables(tables: Iterable[Contingency]) -> Contingency:
    """Return the table of a volume from the tables of its blocks, which do not overlap."""
    whole, pending, rows = _EMPTY, [], 0
    for table in tables:
        pending.append(table)
        rows += table.counts.size
        # sort only when there are as many new rows as old ones: this keeps the work linear in the number of blocks
        if rows > whole.counts.size:
            whole, pending, rows = _joined([whole, *pending]), [], 0
    return _joined([whole, *pending])


def ids_of(name: str, array: np.ndarray) -> np.ndarray:
    """Return the ids of an array, flat; raise BadInput that says `name` if it holds no integers or an id below 0."""
    if not np.issubdtype(array.dtype, np.integer):
        raise BadInput(f"{name}: holds {array.dtype}, expected integer ids")
    if np.issubdtype(array.dtype, np.signedinteger) and array.size and array.min() < 0:
        raise BadInput(f"{name}: holds the id {array.min()}, expected ids from 0 up")
    return array.reshape(-1)


def _count(a: np.ndarray, b: np.ndarray) -> Contingency:
    labelled = b != 0
    if not labelled.all():
        a, b = a[labelled], b[labelled]
    # neighbours along x mostly hold the same pair: count runs first, so that there is less to sort
    starts = _run_starts(a, b)
    return _summed(a[starts], b[starts], np.diff(starts, append=a.size))


def _run_starts(*columns: np.ndarray) -> np.ndarray:
    # the index at which each run of equal rows begins
    changes = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return np.concatenate([[0], np.flatnonzero(changes) + 1])[: columns[0].size]


def _summed(segments: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> Contingency:
    if counts.size == 0:
        return _EMPTY
    order = np.lexsort((labels, segments))
    a, b = segments[order], labels[order]
    starts = _run_starts(a, b)
    total = np.add.reduceat(counts[order], starts, dtype=np.int64)
    return Contingency(a[starts].astype(np.uint64), b[starts].astype(np.uint64), total)


def _joined(tables: list[Contingency]) -> Contingency:
    return _summed(
        np.concatenate([table.segments for table in tables]),
        np.concatenate([table.labels for table in tables]),
        np.concatenate([table.counts for table in tables]),
    )


def _region_sizes(ids: np.ndarray, inverse: np.ndarray, counts: np.ndarray) -> RegionSizes:
    voxels = np.zeros(ids.size, np.int64)
    np.add.at(voxels, inverse, counts)
    return RegionSizes(ids, voxels, inverse)


_EMPTY = Contingency(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64))
