"""The largest splits and merges of a segmentation, one by one, for people who want to look at them.

labels     A A A A A B B B C C        split: a piece of a label that is not in its main segment: A in 2, which should
segments   1 1 1 2 2 3 3 3 3 3               be joined with 1
                 S S       M M        merge: a part of a segment that is not of its main label: C in 3, which should
                                             be cut off from B
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from emsuite.contingency import Contingency

Kind = Literal["split", "merge"]


@dataclass(frozen=True)
class Fault:
    """`voxels` that `label` and `segment` share, which is `share` of the label (split) or of the segment (merge).

    A split is to be joined with `other`, the label's main segment; a merge is to be cut off from `other`, the segment's
    main label. `position` (nm, z y x) is a voxel of the fault: where it meets the other, if the two are `touching`.
    """

    kind: Kind
    voxels: int
    share: float
    label: int
    segment: int
    other: int
    position: tuple[int, ...] | None = None
    touching: bool = False

    @property
    def pair(self) -> tuple[int, int]:
        """What is wrong, as (segment, label)."""
        return self.segment, self.label

    @property
    def other_pair(self) -> tuple[int, int]:
        """What it is to be joined with, or cut off from, as (segment, label)."""
        return (self.other, self.label) if self.kind == "split" else (self.segment, self.other)


def worst_faults(table: Contingency, number: int) -> list[Fault]:
    """The `number` largest splits, then as many merges, by voxels; of equals the smaller ids first.

    Segment 0 is no fault of either kind: voxels without a segment are no piece that could be joined with another.
    """
    main_segment = table.main_segment[table.by_label.row]
    main_label = table.main_label[table.by_segment.row]
    found: list[Fault] = []
    kinds: list[tuple[Kind, np.ndarray, np.ndarray, np.ndarray]] = [
        ("split", table.segments != main_segment, main_segment, table.by_label.voxels[table.by_label.row]),
        ("merge", table.labels != main_label, main_label, table.by_segment.voxels[table.by_segment.row]),
    ]
    for kind, wrong, other, whole in kinds:
        rows = np.flatnonzero(wrong & (table.segments != 0))
        for row in rows[np.argsort(-table.counts[rows], kind="stable")[:number]]:
            label, segment, voxels = int(table.labels[row]), int(table.segments[row]), int(table.counts[row])
            found.append(Fault(kind, voxels, voxels / int(whole[row]), label, segment, int(other[row])))
    return found
