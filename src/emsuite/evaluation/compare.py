"""Compare a segmentation with its ground truth, block by block on several workers.

    contingency/pairs/<block>.parquet    segment, label (uint64), voxels (int64): the contingency table of the block
    contingency/nodes/<block>.parquet    node (int64), segment (uint64): the segment under each skeleton node in the
                                         block, by the node's index in the skeletons; without masked-out nodes
    contingency.manifest.json            written last

Without dense labels, the skeletons are the ground truth: each node counts as a voxel of its neuron does. Then only
blocks that hold nodes are read.

Where sections are scored, a block is a part of one of them.

A worker holds one block in memory. The merged table grows with the number of pairs, not with the number of voxels.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.blockwise.grid import Block, BlockGrid, make_grid
from emsuite.blockwise.run import BlockWorkers, run_blocks
from emsuite.common.errors import BadInput
from emsuite.common.files import remove
from emsuite.common.geometry import Coordinate, Roi, json_numbers
from emsuite.common.outputs import check_whole, output
from emsuite.common.progress import progress
from emsuite.evaluation.contingency import Contingency, contingency, ids_of, merge_tables
from emsuite.evaluation.ground_truth import GroundTruth
from emsuite.io.fingerprint import state_or_voxels
from emsuite.io.regions import format_roi
from emsuite.io.skeletons import Skeletons
from emsuite.io.tables import read_columns, write_columns
from emsuite.io.volume import Volume, fingerprint, open_volume, place_of, split_path

_BLOCK, _SECTION = 256, 4096  # default block sizes, voxels per axis; of sections, y and x
_PAIRS, _NODES = ("segment", "label", "voxels"), ("node", "segment")


@dataclass(frozen=True)
class Comparison:
    """The contingency table over the ROI of `grid`, and the segment (uint64) under each node of the `skeletons`.

    `skeletons` holds the nodes in the ROI alone; it is None if there are none. `folder` holds the table of each block.
    The table counts voxels of labels or, if `of_nodes`, the nodes of skeletons (see `node_table`). `sections` are the
    tables of single z-sections, empty unless they were asked for.
    """

    table: Contingency
    skeletons: Skeletons | None
    node_segments: np.ndarray
    grid: BlockGrid
    folder: Path
    of_nodes: bool = False
    sections: tuple[Contingency, ...] = ()

    def blocks(self) -> Iterator[tuple[Block, Contingency]]:
        """Yield each block that holds labelled voxels, with its contingency table."""
        for block in self.grid:
            table = _read_pairs(self.folder, block.index)
            if table.voxels:
                yield block, table


def compare(
    segmentation: Volume,
    truth: GroundTruth,
    roi: Roi,
    folder: Path,
    *,
    block_size: Sequence[int] | None = None,
    in_sections: bool = False,
    workers: BlockWorkers = 1,
) -> Comparison:
    """Compare a segmentation with its ground truth; read each voxel once.

    Args:
        segmentation: Segments or fragments (Z, Y, X).
        truth: The ground truth, on the same voxel grid: labels, skeletons or both. Nodes that its mask leaves out are
            left out.
        roi: The region to compare, in nm.
        folder: Where to write the tables. If an earlier run with the same settings was stopped, its blocks are kept.
        block_size: In nm; 256 voxels per axis by default.
        in_sections: Whether each z-section gets a table of its own; blocks are then one voxel thick.
        workers: Processes, or jobs of a cluster.

    Raises:
        BadInput: Sections are to be scored without labels, no node of the skeletons lies in `roi`, or the arrays hold
            no ids (see `contingency`), or have lost files since the suite wrote them.
    """
    _check_whole(segmentation, truth)
    if in_sections and truth.labels is None:
        raise BadInput("sections are scored by labels; expected labels beside the skeletons")
    grid = _grid(roi, segmentation, block_size, in_sections)
    arrays = _arrays(segmentation, truth)
    inputs = {name: split_path(array.path)[0] for name, array in arrays.items()}
    settings = {
        "roi": format_roi(roi),
        "block_size": json_numbers(grid.block_size),
        "arrays": {name: place_of(array.path) for name, array in arrays.items()},
        "inputs": {name: fingerprint(path) for name, path in inputs.items()},
        "files": {name: state_or_voxels(array.path) for name, array in arrays.items()},
        **({"border": truth.border} if truth.border else {}),
        "nodes": truth.skeletons and hashlib.sha256(truth.skeletons.positions.tobytes()).hexdigest(),
    }
    with output(folder, settings, inputs=inputs, fingerprint=fingerprint) as record:
        record.claim()
        done = folder / ".blocks"
        paths = {name: array.path for name, array in arrays.items()}
        nodes = _nodes_by_block(truth.skeletons, grid, segmentation.voxel_size)
        process = _CompareBlock(folder, **paths, nodes=nodes, border=truth.border)
        run_blocks("comparing", grid, process, workers, done, run=record.run)
        record.notes["blocks"] = len(grid)
        remove(done)
    if truth.labels is None:
        skeletons, node_segments = _read_nodes(truth.skeletons, grid, folder)
        assert skeletons is not None, "ground truth without labels has skeletons"
        return Comparison(node_table(skeletons, node_segments), skeletons, node_segments, grid, folder, of_nodes=True)
    indices = progress(range(len(grid)), what="merging", unit="block")
    table = merge_tables(_read_pairs(folder, index) for index in indices)
    sections = _sections(grid, folder) if in_sections else ()
    return Comparison(table, *_read_nodes(truth.skeletons, grid, folder), grid, folder, sections=sections)


def node_table(skeletons: Skeletons, segments: np.ndarray, chosen: np.ndarray | None = None) -> Contingency:
    """Return the contingency table of skeleton nodes: each counts 1 for its segment and its skeleton.

    Args:
        skeletons: N nodes.
        segments: The segment (uint64, (N,)) under each node; segment 0 is a segment like any other.
        chosen: A bool for each node: whether it counts; by default all count.

    Returns:
        The table. Its labels are 1, 2, 3 ... for the skeletons in the order of their ids, since an id may be 0.
    """
    _, index = np.unique(skeletons.skeleton, return_inverse=True)
    labels = (index + 1).astype(np.uint64)
    return contingency(segments, labels) if chosen is None else contingency(segments[chosen], labels[chosen])


@dataclass(frozen=True)
class _BlockNodes:
    """Skeleton nodes, sorted by block: those of block i are at `first[i]` to `first[i + 1]`.

    `nodes` are their indices in the skeletons; `voxels` (N, 3) are their voxels, counted from the start of their block.
    """

    nodes: np.ndarray
    voxels: np.ndarray
    first: np.ndarray


@dataclass(frozen=True)
class _CompareBlock:
    """Compares one block. It holds paths, not open arrays, so that it can be sent to a worker."""

    folder: Path
    segmentation: Path
    nodes: _BlockNodes
    labels: Path | None = None
    mask: Path | None = None
    border: float = 0

    def is_whole(self, block: Block) -> bool:
        """See `run_blocks`."""
        first, last = self.nodes.first[block.index : block.index + 2]
        expected = ["nodes"] * bool(first < last) + ["pairs"] * (self.labels is not None)
        return all(_table(self.folder, name, block.index).exists() for name in expected)

    def __call__(self, block: Block) -> None:
        in_block = slice(*self.nodes.first[block.index : block.index + 2])
        has_nodes = in_block.start < in_block.stop
        if self.labels is None and not has_nodes:
            return
        labels, mask = (None if path is None else open_volume(path) for path in (self.labels, self.mask))
        truth = GroundTruth(labels, mask, border=self.border)
        segmentation = open_volume(self.segmentation).read(block.write)
        if has_nodes:
            voxels = tuple(self.nodes.voxels[in_block].T)
            is_scored = np.s_[:] if mask is None else truth.is_scored(block.write)[voxels]
            segments = ids_of("segmentation", segmentation[voxels][is_scored]).astype(np.uint64)
            columns = self.nodes.nodes[in_block][is_scored], segments
            write_columns(_table(self.folder, "nodes", block.index), dict(zip(_NODES, columns, strict=True)))
        if labels is not None:
            table = contingency(segmentation, truth.read(block.write))
            write_columns(_table(self.folder, "pairs", block.index), dict(zip(_PAIRS, _columns(table), strict=True)))


def _arrays(segmentation: Volume, truth: GroundTruth) -> dict[str, Volume]:
    given = {"segmentation": segmentation, "labels": truth.labels, "mask": truth.mask}
    return {name: array for name, array in given.items() if array is not None}


def _check_whole(segmentation: Volume, truth: GroundTruth) -> None:
    check_whole(segmentation.path)
    for array in (truth.labels, truth.mask):
        if array is not None:
            check_whole(array.path, is_edited=True)


def _grid(roi: Roi, segmentation: Volume, block_size: Sequence[int] | None, in_sections: bool) -> BlockGrid:
    requested = (
        segmentation.voxel_size * (_BLOCK if not in_sections else _SECTION) if block_size is None else block_size
    )
    if in_sections:
        requested = (segmentation.voxel_size[0], *requested[1:])
    size = make_grid(segmentation, requested, context=(0, 0, 0)).block_size
    return BlockGrid(roi, Coordinate(min(b, n) for b, n in zip(size, roi.shape, strict=True)), size * 0)


def _nodes_by_block(skeletons: Skeletons | None, grid: BlockGrid, voxel_size: Coordinate) -> _BlockNodes:
    positions = np.empty((0, 3)) if skeletons is None else skeletons.positions
    voxels = np.floor((positions - np.array(grid.total.begin, float)) / np.array(voxel_size, float)).astype(np.int64)
    inside = np.flatnonzero(((voxels >= 0) & (voxels < np.array(grid.total.shape / voxel_size))).all(axis=1))
    block, in_block = np.divmod(voxels[inside], np.array(grid.block_size / voxel_size))
    index = np.ravel_multi_index(tuple(block.T), tuple(grid.shape))
    order = np.argsort(index, kind="stable")
    return _BlockNodes(inside[order], in_block[order], np.searchsorted(index[order], np.arange(len(grid) + 1)))


def _read_nodes(skeletons: Skeletons | None, grid: BlockGrid, folder: Path) -> tuple[Skeletons | None, np.ndarray]:
    if skeletons is None:
        return None, np.empty(0, np.uint64)
    tables = [read_columns(path, _NODES) for path in sorted((folder / "nodes").glob("*.parquet"))]
    if not sum(node.size for node, _ in tables):
        raise BadInput(f"{skeletons.source}: no node lies in the scored region {grid.total} nm")
    segments, is_scored = np.zeros(skeletons.ids.size, np.uint64), np.zeros(skeletons.ids.size, bool)
    for node, segment in tables:
        segments[node], is_scored[node] = segment, True
    return skeletons.subset(is_scored), segments[is_scored]


def _sections(grid: BlockGrid, folder: Path) -> tuple[Contingency, ...]:
    """Return the table of each section; blocks are parts of one section each."""
    of_section: dict[Any, list[int]] = {}
    for block in grid:
        of_section.setdefault(block.write.begin[0], []).append(block.index)
    return tuple(merge_tables(_read_pairs(folder, index) for index in indices) for indices in of_section.values())


def _columns(table: Contingency) -> tuple[np.ndarray, ...]:
    return table.segments, table.labels, table.counts


def _read_pairs(folder: Path, block: int) -> Contingency:
    return Contingency(*read_columns(_table(folder, "pairs", block), _PAIRS))


def _table(folder: Path, kind: str, block: int) -> Path:
    return folder / kind / f"{block}.parquet"
