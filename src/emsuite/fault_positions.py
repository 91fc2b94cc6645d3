"""Where faults are: for each, one block is read again, the one in which most of both its sides lie."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from emsuite.comparison import Comparison
from emsuite.evaluate import Evaluation
from emsuite.faults import Fault
from emsuite.grid import Block
from emsuite.truth import Truth
from emsuite.volume import Volume

_Pair = tuple[int, int]


def locate(
    faults: Sequence[Fault], comparison: Comparison, evaluation: Evaluation, segmentation: Volume, truth: Truth
) -> list[Fault]:
    """The faults of `evaluation`, in their order, with positions in nm; reads at most one block per fault."""
    located: dict[Fault, Fault] = {}
    for block, here in _blocks_of(faults, comparison, evaluation).values():
        labels, segments = truth.read(block.write), _segments(segmentation.read(block.write), evaluation)
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


def _segments(voxels: np.ndarray, evaluation: Evaluation) -> np.ndarray:
    # neighbours along x mostly hold the same id: few need to be looked up
    flat = voxels.reshape(-1)
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    runs = evaluation.segments_of(flat[starts])
    return np.repeat(runs, np.diff(starts, append=flat.size)).reshape(voxels.shape)


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
