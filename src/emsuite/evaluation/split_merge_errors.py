"""Split and merge errors of a segmentation: of each voxel, and the largest ones with positions to look at.

labels     A A A A A B B B C C C      a label's main segment is the segment that shares most voxels with it,
segments   1 1 1 2 2 3 3 3 3 3 0      a segment's main label likewise
error            S S       M M -      S: split, M: merge, -: no segment

The two voxels S are a split error: a piece of label A in segment 2, which should be joined with A's main segment 1. The
two voxels M are a merge error: a piece of label C in segment 3, which should be cut off from 3's main label B.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.spatial import KDTree

from emsuite.blockwise.grid import Block
from emsuite.common.files import write_table
from emsuite.evaluation.compare import Comparison
from emsuite.evaluation.contingency import Contingency
from emsuite.evaluation.ground_truth import GroundTruth
from emsuite.evaluation.threshold_sweep import Evaluation
from emsuite.io.skeletons import Skeletons
from emsuite.io.volume import Volume

ErrorKind = Literal["split", "merge"]
_Pair = tuple[int, int]  # a segment and a label

_COLUMNS = ["kind", "voxels", "share", "label", "segment", "other_label", "other_segment", "z", "y", "x", "touching"]


class VoxelError(IntEnum):
    """The error of a labelled voxel.

    SPLIT: its segment is not the main segment of its label. MERGE: its label is not the main label of its segment.
    BOTH: as at a border between neurons that the segmentation puts elsewhere. UNSEGMENTED: it is in no segment.
    """

    NONE = 0
    SPLIT = 1
    MERGE = 2
    BOTH = SPLIT + MERGE
    UNSEGMENTED = 4


def voxel_errors(table: Contingency, segments: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the `VoxelError` (uint8) of each voxel.

    Args:
        table: The contingency table of the whole segmentation.
        segments: Voxels of the segmentation (uint64), any shape.
        labels: The same voxels of the ground truth (uint64); label 0 is never an error.
    """
    errors = np.zeros(labels.shape, np.uint8)
    labelled = labels != 0
    segment, label = segments[labelled], labels[labelled]
    split = table.main_segment[np.searchsorted(table.by_label.ids, label)] != segment
    merge = table.main_label[np.searchsorted(table.by_segment.ids, segment)] != label
    errors[labelled] = np.where(
        segment == 0, np.uint8(VoxelError.UNSEGMENTED), split * VoxelError.SPLIT + merge * VoxelError.MERGE
    )
    return errors


def voxel_error_shares(table: Contingency) -> dict[VoxelError, float]:
    """Return the share of labelled voxels, 0 to 1, with each kind of error."""
    errors = voxel_errors(table, table.segments, table.labels)
    voxels = np.bincount(errors, weights=table.counts, minlength=len(VoxelError))
    return {error: float(voxels[error] / table.voxels) for error in VoxelError}


@dataclass(frozen=True)
class SplitMergeError:
    """The `voxels` that `label` and `segment` share wrongly: `share` of the label (split) or of the segment (merge).

    Without labels they are skeleton nodes. A split should be joined with `other`, the label's main segment; a merge
    should be cut off from `other`, the segment's main label. `position` (nm, z y x) is a voxel of the error. If
    `touching`, it has a face in common with `other`.
    """

    kind: ErrorKind
    voxels: int
    share: float
    label: int
    segment: int
    other: int
    position: tuple[int, ...] | None = None
    touching: bool = False

    @property
    def pair(self) -> _Pair:
        """The segment and the label of the error."""
        return self.segment, self.label

    @property
    def other_pair(self) -> _Pair:
        """The segment and the label that the error should be joined with, or cut off from."""
        return (self.other, self.label) if self.kind == "split" else (self.segment, self.other)


def largest_errors(table: Contingency, number: int) -> list[SplitMergeError]:
    """Return the `number` largest splits, then as many merges, by voxels; among equals the smaller ids first.

    Voxels in segment 0 are no error of either kind, since they are no piece that could be joined with another.
    """
    main_segment = table.main_segment[table.by_label.inverse]
    main_label = table.main_label[table.by_segment.inverse]
    label_voxels, segment_voxels = (side.voxels[side.inverse] for side in (table.by_label, table.by_segment))
    kinds: list[tuple[ErrorKind, np.ndarray, np.ndarray, np.ndarray]] = [
        ("split", table.segments != main_segment, main_segment, label_voxels),
        ("merge", table.labels != main_label, main_label, segment_voxels),
    ]
    errors: list[SplitMergeError] = []
    for kind, is_error, other, whole in kinds:
        rows = np.flatnonzero(is_error & (table.segments != 0))
        for row in rows[np.argsort(-table.counts[rows], kind="stable")[:number]]:
            label, segment, voxels = int(table.labels[row]), int(table.segments[row]), int(table.counts[row])
            errors.append(SplitMergeError(kind, voxels, voxels / int(whole[row]), label, segment, int(other[row])))
    return errors


def locate_errors(
    errors: Sequence[SplitMergeError],
    comparison: Comparison,
    evaluation: Evaluation,
    segmentation: Volume,
    truth: GroundTruth,
) -> list[SplitMergeError]:
    """Return the errors with their positions (nm), in the same order.

    For each error, one block is read: the block in which most voxels of both sides of the error lie.

    Args:
        errors: Errors of `evaluation.table`.
        comparison: The comparison of `segmentation` with `truth`.
        evaluation: The scores of the comparison.
        segmentation: The compared segmentation or fragments.
        truth: The ground truth.
    """
    located: dict[SplitMergeError, SplitMergeError] = {}
    for block, errors_in_block in _choose_blocks(errors, comparison, evaluation).values():
        labels = truth.read(block.write)
        segments = evaluation.segments_of(segmentation.read(block.write))
        for error in errors_in_block:
            voxel, touching = _find_voxel(error, labels, segments)
            center_nm = np.array(block.write.begin, float) + (voxel + 0.5) * np.array(segmentation.voxel_size, float)
            located[error] = replace(error, position=tuple(int(nm) for nm in center_nm), touching=touching)
    return [located[error] for error in errors]


def locate_on_skeletons(
    errors: Sequence[SplitMergeError], comparison: Comparison, evaluation: Evaluation
) -> list[SplitMergeError]:
    """Return the errors of a table of skeleton nodes with positions (nm) and the ids of the skeletons, in their order.

    The position is that of a node: one with an edge to the other side of the error (`touching`), or else the nearest.

    Args:
        errors: Errors of `evaluation.table`, whose labels count the skeletons from 1.
        comparison: The comparison of a segmentation with skeletons.
        evaluation: The scores of the comparison.
    """
    skeletons = comparison.skeletons
    assert skeletons is not None, "a table of nodes comes from skeletons"
    names, index = np.unique(skeletons.skeleton, return_inverse=True)
    segments = evaluation.segments_of(comparison.node_segments)
    located = []
    for error in errors:
        own, other = ((segments == segment) & (index == label - 1) for segment, label in (error.pair, error.other_pair))
        position, touching = _find_node(skeletons, own, other)
        named: dict[str, Any] = {"label": int(names[error.label - 1])}
        if error.kind == "merge":
            named["other"] = int(names[error.other - 1])
        located.append(replace(error, position=position, touching=touching, **named))
    return located


def _find_node(skeletons: Skeletons, own: np.ndarray, other: np.ndarray) -> tuple[tuple[int, ...], bool]:
    # the position of a node of `own`, and whether an edge joins it to a node of `other`
    ends = np.concatenate([skeletons.ends, skeletons.ends[:, ::-1]])
    joined = ends[own[ends[:, 0]] & other[ends[:, 1]], 0]
    candidates = np.flatnonzero(own)
    if joined.size:
        node = joined[0]
    else:
        distance, _ = KDTree(skeletons.positions[other]).query(skeletons.positions[candidates])
        node = candidates[distance.argmin()]
    return tuple(int(nm) for nm in np.floor(skeletons.positions[node])), bool(joined.size)


def write_errors(path: Path, errors: Iterable[SplitMergeError]) -> None:
    """Write a table (CSV) of errors, in their order: the kind, the ids, and the position (nm)."""
    write_table(path, _COLUMNS, map(_row, errors))


def _choose_blocks(
    errors: Sequence[SplitMergeError], comparison: Comparison, evaluation: Evaluation
) -> Mapping[int, tuple[Block, list[SplitMergeError]]]:
    # the blocks to read, by their index, each with the errors to locate in it
    largest: dict[SplitMergeError, tuple[int, int]] = {}
    chosen: dict[SplitMergeError, Block] = {}
    pairs = {pair for error in errors for pair in (error.pair, error.other_pair)}
    labels = np.array(sorted({label for _, label in pairs}), np.uint64)
    for block, table in comparison.blocks():
        rows = np.flatnonzero(np.isin(table.labels, labels))
        segments = evaluation.segments_of(table.segments[rows])
        pairs_in_block = zip(segments.tolist(), table.labels[rows].tolist(), strict=True)
        voxels = _count_voxels(pairs, pairs_in_block, table.counts[rows])
        for error in errors:
            own, other = voxels.get(error.pair, 0), voxels.get(error.other_pair, 0)
            if own and (min(own, other), own) > largest.get(error, (-1, 0)):
                largest[error], chosen[error] = (min(own, other), own), block
    by_block: dict[int, tuple[Block, list[SplitMergeError]]] = {}
    for error, block in chosen.items():
        by_block.setdefault(block.index, (block, []))[1].append(error)
    return by_block


def _count_voxels(pairs: set[_Pair], pairs_in_block: Iterable[_Pair], counts: np.ndarray) -> dict[_Pair, int]:
    # the voxels of each of `pairs` in a block, in which merged fragments may share a pair
    voxels: dict[_Pair, int] = {}
    for pair, count in zip(pairs_in_block, counts.tolist(), strict=True):
        if pair in pairs:
            voxels[pair] = voxels.get(pair, 0) + count
    return voxels


def _find_voxel(error: SplitMergeError, labels: np.ndarray, segments: np.ndarray) -> tuple[np.ndarray, bool]:
    # the index of a voxel of the error, and whether it touches the other side
    box = _bounding_box(labels == error.label)
    own, other = ((segments[box] == s) & (labels[box] == n) for s, n in (error.pair, error.other_pair))
    contact = own & _face_neighbors(other)
    touching = bool(contact.any())
    candidates = np.argwhere(contact if touching else own)
    most_central = ((candidates - candidates.mean(axis=0)) ** 2).sum(axis=1).argmin()
    return np.array([part.start for part in box]) + candidates[most_central], touching


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    # the box that holds the mask, and a voxel around it
    along_axes = (
        np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis))) for axis in range(mask.ndim)
    )
    return tuple(slice(max(int(along[0]) - 1, 0), int(along[-1]) + 2) for along in along_axes)


def _face_neighbors(mask: np.ndarray) -> np.ndarray:
    # the voxels that share a face with a voxel of the mask
    neighbors = np.zeros_like(mask)
    for axis in range(mask.ndim):
        target, source = (np.moveaxis(array, axis, 0) for array in (neighbors, mask))
        target[1:] |= source[:-1]
        target[:-1] |= source[1:]
    return neighbors


def _row(error: SplitMergeError) -> dict[str, Any]:
    other = {"other_segment" if error.kind == "split" else "other_label": error.other}
    position = dict(zip("zyx", error.position or (), strict=False))
    own = {name: getattr(error, name) for name in ("kind", "voxels", "label", "segment")}
    return own | other | position | {"share": round(error.share, 6), "touching": int(error.touching)}
