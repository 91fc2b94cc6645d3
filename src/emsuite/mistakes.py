"""Where a segmentation is wrong, voxel by voxel.

labels     A A A A B B B C C C      a label's main segment is the one it shares most voxels with,
segments   1 1 1 2 3 3 3 3 3 0      a segment's main label likewise
mistake          S       M M -      S: split, M: merge, -: no segment
"""

from enum import IntEnum

import numpy as np

from emsuite.contingency import Contingency


class Mistake(IntEnum):
    """What is wrong with a labelled voxel.

    Its segment is not its label's main one (split), its label is not its segment's main one (merge), both (as where a
    border lies elsewhere), or it has no segment.
    """

    NONE = 0
    SPLIT = 1
    MERGE = 2
    BOTH = SPLIT + MERGE
    UNSEGMENTED = 4


def mistakes(table: Contingency, segments: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The kind of `Mistake` (uint8) at each voxel of two uint64 arrays of one shape that `table` was made from."""
    kind = np.zeros(labels.shape, np.uint8)
    labelled = labels != 0
    own, label = segments[labelled], labels[labelled]
    split = table.main_segment[np.searchsorted(table.by_label.ids, label)] != own
    merge = table.main_label[np.searchsorted(table.by_segment.ids, own)] != label
    kind[labelled] = np.where(own == 0, np.uint8(Mistake.UNSEGMENTED), split * Mistake.SPLIT + merge * Mistake.MERGE)
    return kind


def mistake_shares(table: Contingency) -> dict[Mistake, float]:
    """The share of labelled voxels with each kind of mistake."""
    kind = mistakes(table, table.segments, table.labels)
    voxels = np.bincount(kind, weights=table.counts, minlength=len(Mistake))
    return {mistake: float(voxels[mistake] / table.voxels) for mistake in Mistake}
