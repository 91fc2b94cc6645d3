"""Where a segmentation is wrong, voxel by voxel.

labels     A A A A B B B C C C      a label's main segment is the one it shares most voxels with,
segments   1 1 1 2 3 3 3 3 3 0      a segment's main label likewise
mistake          S       M M -      S: split, M: merge, -: no segment

The largest splits and merges of a segmentation, one by one, for people who want to look at them.

labels     A A A A A B B B C C        split: a piece of a label that is not in its main segment: A in 2, which should
segments   1 1 1 2 2 3 3 3 3 3               be joined with 1
                 S S       M M        merge: a part of a segment that is not of its main label: C in 3, which should
                                             be cut off from B

Where faults are: for each, one block is read again, the one in which most of both its sides lie.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np

from emsuite.blockwise.grid import Block
from emsuite.common.files import write_table
from emsuite.evaluation.compare import Comparison
from emsuite.evaluation.contingency import Contingency
from emsuite.evaluation.ground_truth import GroundTruth
from emsuite.evaluation.threshold_sweep import Evaluation
from emsuite.io.volume import Volume


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
    main_segment = table.main_segment[table.by_label.inverse]
    main_label = table.main_label[table.by_segment.inverse]
    found: list[Fault] = []
    kinds: list[tuple[Kind, np.ndarray, np.ndarray, np.ndarray]] = [
        ("split", table.segments != main_segment, main_segment, table.by_label.voxels[table.by_label.inverse]),
        ("merge", table.labels != main_label, main_label, table.by_segment.voxels[table.by_segment.inverse]),
    ]
    for kind, wrong, other, whole in kinds:
        rows = np.flatnonzero(wrong & (table.segments != 0))
        for row in rows[np.argsort(-table.counts[rows], kind="stable")[:number]]:
            label, segment, voxels = int(table.labels[row]), int(table.segments[row]), int(table.counts[row])
            found.append(Fault(kind, voxels, voxels / int(whole[row]), label, segment, int(other[row])))
    return found


_Pair = tuple[int, int]


def locate(
    faults: Sequence[Fault], comparison: Comparison, evaluation: Evaluation, segmentation: Volume, truth: GroundTruth
) -> list[Fault]:
    """The faults of `evaluation`, in their order, with positions in nm; reads at most one block per fault."""
    located: dict[Fault, Fault] = {}
    for block, here in _blocks_of(faults, comparison, evaluation).values():
        labels, segments = truth.read(block.write), evaluation.segments_of(segmentation.read(block.write))
        for fault in here:
            index, touching = _look(fault, labels, segments)
            place = np.array(block.write.begin) + (index + 0.5) * np.array(segmentation.voxel_size)
            located[fault] = replace(fault, position=tuple(int(nm) for nm in place), touching=touching)
    return [located[fault] for fault in faults]


def _blocks_of(
    faults: Sequence[Fault], comparison: Comparison, evaluation: Evaluation
) -> Mapping[int, tuple[Block, list[Fault]]]:
    # the blocks to read, by their number, each with the faults to look for
    best: dict[Fault, tuple[int, int]] = {}
    chosen: dict[Fault, Block] = {}
    wanted = {pair for fault in faults for pair in (fault.pair, fault.other_pair)}
    labels = np.array(sorted({label for _, label in wanted}), np.uint64)
    for block, table in comparison.blocks():
        rows = np.flatnonzero(np.isin(table.labels, labels))
        segments = evaluation.segments_of(table.segments[rows])
        shared = _voxels_of(
            wanted, zip(segments.tolist(), table.labels[rows].tolist(), strict=True), table.counts[rows]
        )
        for fault in faults:
            own, other = shared.get(fault.pair, 0), shared.get(fault.other_pair, 0)
            if own and (min(own, other), own) > best.get(fault, (-1, 0)):
                best[fault], chosen[fault] = (min(own, other), own), block
    grouped: dict[int, tuple[Block, list[Fault]]] = {}
    for fault, block in chosen.items():
        grouped.setdefault(block.index, (block, []))[1].append(fault)
    return grouped


def _voxels_of(wanted: set[_Pair], pairs: Iterable[_Pair], counts: np.ndarray) -> dict[_Pair, int]:
    voxels: dict[_Pair, int] = {}
    for pair, count in zip(pairs, counts.tolist(), strict=True):
        if pair in wanted:
            voxels[pair] = voxels.get(pair, 0) + count
    return voxels


def _look(fault: Fault, labels: np.ndarray, segments: np.ndarray) -> tuple[np.ndarray, bool]:
    # the index of a voxel of the fault, and whether it touches the other side
    box = _box(labels == fault.label)
    own, other = ((segments[box] == s) & (labels[box] == n) for s, n in (fault.pair, fault.other_pair))
    contact = own & _beside(other)
    touching = bool(contact.any())
    inside = np.argwhere(contact if touching else own)
    nearest = ((inside - inside.mean(axis=0)) ** 2).sum(axis=1).argmin()
    return np.array([part.start for part in box]) + inside[nearest], touching


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    # what holds all of the mask, and a voxel around it
    found = (
        np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis))) for axis in range(mask.ndim)
    )
    return tuple(slice(max(int(along[0]) - 1, 0), int(along[-1]) + 2) for along in found)


def _beside(mask: np.ndarray) -> np.ndarray:
    # the voxels that share a face with one of the mask's
    beside = np.zeros_like(mask)
    for axis in range(mask.ndim):
        to, of = (np.moveaxis(array, axis, 0) for array in (beside, mask))
        to[1:] |= of[:-1]
        to[:-1] |= of[1:]
    return beside


def write_faults(path: Path, faults: list[Fault]) -> None:
    """Write a table of faults, largest first: what is wrong, its ids, and where to look (nm)."""
    names = ["kind", "voxels", "share", "label", "segment", "other_label", "other_segment", "z", "y", "x", "touching"]
    write_table(path, names, map(_fault_row, faults))


def _fault_row(fault: Fault) -> dict[str, Any]:
    other = {"other_segment" if fault.kind == "split" else "other_label": fault.other}
    place = dict(zip("zyx", fault.position or (), strict=False))
    own = {name: getattr(fault, name) for name in ("kind", "voxels", "label", "segment")}
    return own | other | place | {"share": round(fault.share, 6), "touching": int(fault.touching)}
