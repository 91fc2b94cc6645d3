"""The sparse contingency table of a segmentation and its ground truth: all that region scores are made of.

    segment  label  voxels        sorted by segment, then label; pairs that never meet are not stored,
        0      7       12         nor are voxels of label 0 (not annotated)
        3      7      640
        3      9       81

Tables of blocks add up to the table of the volume (`merge`), and a table of fragments becomes the table of any
agglomeration of them (`Contingency.map`): a sweep of thresholds reads the voxels once. Since every sum is one of
integers, blocks give exactly the table that the whole volume gives.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.relabel import relabel

_PART = 2**20  # voxels counted at a time: what they need stays in the processor's caches


class Group(NamedTuple):
    """The distinct ids of one side of a table: `ids` ascending, their `voxels`, and the `row` of each pair's id."""

    ids: np.ndarray
    voxels: np.ndarray
    row: np.ndarray


@dataclass(frozen=True)
class Contingency:
    """How many voxels (`counts`, int64) each pair of a segment and a label (uint64, label never 0) share."""

    segments: np.ndarray
    labels: np.ndarray
    counts: np.ndarray

    @cached_property
    def voxels(self) -> int:
        """All voxels with a label."""
        return int(self.counts.sum())

    @cached_property
    def by_segment(self) -> Group:
        """The segments and their sizes; segment 0 is among them where labelled voxels have none."""
        starts = _run_starts(self.segments)
        row = np.repeat(np.arange(starts.size), np.diff(starts, append=self.segments.size))
        return _group(self.segments[starts], row, self.counts)

    @cached_property
    def by_label(self) -> Group:
        """The labels and their sizes."""
        return _group(*np.unique(self.labels, return_inverse=True), self.counts)

    @cached_property
    def main_label(self) -> np.ndarray:
        """The label that each of `by_segment.ids` shares most voxels with (the larger id of equals)."""
        return self.labels[np.lexsort((self.labels, self.counts, self.segments))][self._last_of(self.by_segment)]

    @cached_property
    def main_segment(self) -> np.ndarray:
        """The segment that each of `by_label.ids` shares most voxels with; 0 only where it has no other."""
        order = np.lexsort((self.segments, self.counts, self.segments != 0, self.labels))
        return self.segments[order][self._last_of(self.by_label)]

    def map(self, fragments: np.ndarray, segments: np.ndarray) -> "Contingency":
        """The table after each id in `fragments` became the one beside it in `segments`; 0 stays 0.

        Raises BadInput if the table holds a fragment that the lookup table does not.
        """
        return self.relabelled(relabel(self.by_segment.ids, fragments, segments))

    def relabelled(self, ids: np.ndarray) -> "Contingency":
        """The table after each of `by_segment.ids` became the one of the same place in `ids` (uint64)."""
        return _summed(ids[self.by_segment.row], self.labels, self.counts)

    @staticmethod
    def _last_of(group: Group) -> np.ndarray:
        # where each id's pairs end, once the pairs are sorted by id
        return np.cumsum(np.bincount(group.row, minlength=group.ids.size)) - 1


def contingency(segmentation: np.ndarray, labels: np.ndarray) -> Contingency:
    """Count the pairs of two integer arrays of one shape (any dtype, any axes); label 0 is left out.

    Raises BadInput for other dtypes, ids below 0 and shapes that differ.
    """
    segmentation, labels = np.asarray(segmentation), np.asarray(labels)
    if segmentation.shape != labels.shape:
        raise BadInput(f"segmentation {segmentation.shape} and labels {labels.shape} differ in shape")
    a, b = _ids("segmentation", segmentation), _ids("labels", labels)
    return merge(_count(a[start : start + _PART], b[start : start + _PART]) for start in range(0, a.size, _PART))


def merge(tables: Iterable[Contingency]) -> Contingency:
    """The table of a volume from those of its blocks, each voxel in one of them."""
    whole, pending, rows = _EMPTY, [], 0
    for table in tables:
        pending.append(table)
        rows += table.counts.size
        # sorting only when as much is new as is old keeps the work linear in the number of blocks
        if rows > whole.counts.size:
            whole, pending, rows = _joined([whole, *pending]), [], 0
    return _joined([whole, *pending])


def _ids(name: str, array: np.ndarray) -> np.ndarray:
    if not np.issubdtype(array.dtype, np.integer):
        raise BadInput(f"{name}: holds {array.dtype}, expected integer ids")
    if np.issubdtype(array.dtype, np.signedinteger) and array.size and array.min() < 0:
        raise BadInput(f"{name}: holds the id {array.min()}, expected ids from 0 up")
    return array.reshape(-1)


def _count(a: np.ndarray, b: np.ndarray) -> Contingency:
    labelled = b != 0
    if not labelled.all():
        a, b = a[labelled], b[labelled]
    # neighbours along x mostly hold the same pair: counting runs first leaves little to sort
    starts = _run_starts(a, b)
    return _summed(a[starts], b[starts], np.diff(starts, append=a.size))


def _run_starts(*columns: np.ndarray) -> np.ndarray:
    # where a run of equal rows begins
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


def _group(ids: np.ndarray, row: np.ndarray, counts: np.ndarray) -> Group:
    voxels = np.zeros(ids.size, np.int64)
    np.add.at(voxels, row, counts)
    return Group(ids, voxels, row)


_EMPTY = Contingency(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64))
