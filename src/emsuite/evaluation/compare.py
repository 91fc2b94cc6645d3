"""A segmentation laid over its ground truth, block by block on several workers: what they share, and where nodes lie.

    contingency/pairs/<block>.parquet    segment, label (uint64), voxels (int64): what meets in the block
    contingency/nodes/<block>.parquet    node (int64), segment (uint64): skeleton nodes in the block, by their place in
                                         the skeletons, unless the mask leaves them out
    contingency.manifest.json            written last

A worker holds one block at a time; what is merged grows with the number of pairs, not with that of voxels.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from funlib.geometry import Coordinate, Roi

from emsuite.blockwise.grid import Block, BlockGrid, make_grid
from emsuite.blockwise.run import BlockWorkers, run_blocks
from emsuite.common.errors import BadInput
from emsuite.common.files import remove
from emsuite.common.outputs import output
from emsuite.common.progress import progress
from emsuite.evaluation.contingency import Contingency, contingency, merge
from emsuite.evaluation.ground_truth import GroundTruth
from emsuite.io.skeletons import Skeletons
from emsuite.io.tables import read_columns, write_columns
from emsuite.io.volume import Volume, fingerprint, format_roi, open_volume, split_path

_BLOCK = 256  # voxels per axis that a worker holds at a time, unless told otherwise
_PAIRS, _NODES = ("segment", "label", "voxels"), ("node", "segment")


@dataclass(frozen=True)
class Comparison:
    """The contingency table over a ROI, the skeletons in it, and the segment (uint64) under each of their nodes.

    `skeletons` is None where there are none; `blocks` gives the table of each block of `grid` again.
    """

    table: Contingency
    skeletons: Skeletons | None
    nodes: np.ndarray
    grid: BlockGrid
    folder: Path

    def blocks(self) -> Iterator[tuple[Block, Contingency]]:
        """Each block that holds labelled voxels, with its own contingency table."""
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
    workers: BlockWorkers = 1,
) -> Comparison:
    """Compare `segmentation` (Z, Y, X) with `truth` over `roi` (nm), both read once; tables are written to `folder`.

    `block_size` in nm, default 256 voxels per axis. What a stopped run of the same settings did is kept. Nodes that
    the mask leaves out are left out, too. Raises BadInput if no node of the skeletons is left, and as `contingency`.
    """
    grid = _grid(roi, segmentation, block_size)
    arrays = {"segmentation": segmentation, "labels": truth.labels} | ({"mask": truth.mask} if truth.mask else {})
    inputs = {name: split_path(array.path)[0] for name, array in arrays.items()}
    settings = {
        "roi": format_roi(roi),
        "block_size": list(grid.block_size),
        "arrays": {name: str(array.path.resolve()) for name, array in arrays.items()},
        "inputs": {name: fingerprint(path) for name, path in inputs.items()},
        "nodes": truth.skeletons and hashlib.sha256(truth.skeletons.positions.tobytes()).hexdigest(),
    }
    with output(folder, settings, inputs=inputs, fingerprint=fingerprint) as made:
        done = folder / ".blocks"
        paths = {name: array.path for name, array in arrays.items()}
        process = _CompareBlock(folder, **paths, nodes=_nodes_of(truth.skeletons, grid, truth.labels.voxel_size))
        run_blocks("comparing", grid, process, workers, done)
        made.notes["blocks"] = len(grid)
        remove(done)
    indices = progress(range(len(grid)), what="merging", unit="block")
    table = merge(_read_pairs(folder, index) for index in indices)
    return Comparison(table, *_found_nodes(truth.skeletons, grid, folder), grid, folder)


@dataclass(frozen=True)
class _BlockNodes:
    """Skeleton nodes (`order`: their places in the skeletons) and the `voxels` (N, 3) of their block that they lie in.

    They stand one block's after another's, those of block i from `first[i]` to `first[i + 1]`.
    """

    order: np.ndarray
    voxels: np.ndarray
    first: np.ndarray


@dataclass(frozen=True)
class _CompareBlock:
    """What is done to one block; opened by path, so that it can be sent to a worker."""

    folder: Path
    segmentation: Path
    labels: Path
    nodes: _BlockNodes
    mask: Path | None = None

    def __call__(self, block: Block) -> None:
        truth = GroundTruth(open_volume(self.labels), None if self.mask is None else open_volume(self.mask))
        found = open_volume(self.segmentation).read(block.write)
        here = slice(*self.nodes.first[block.index : block.index + 2])
        if here.start < here.stop:
            place = tuple(self.nodes.voxels[here].T)
            counted = truth.counts(block.write)[place]
            kept = (self.nodes.order[here][counted], found[place][counted].astype(np.uint64))
            write_columns(_table(self.folder, "nodes", block.index), dict(zip(_NODES, kept, strict=True)))
        table = contingency(found, truth.read(block.write))
        write_columns(_table(self.folder, "pairs", block.index), dict(zip(_PAIRS, _columns(table), strict=True)))


def _grid(roi: Roi, segmentation: Volume, block_size: Sequence[int] | None) -> BlockGrid:
    wanted = segmentation.voxel_size * _BLOCK if block_size is None else block_size
    size = make_grid(segmentation, wanted, context=(0, 0, 0)).block_size
    return BlockGrid(roi, Coordinate(min(b, n) for b, n in zip(size, roi.shape, strict=True)), size * 0)


def _nodes_of(skeletons: Skeletons | None, grid: BlockGrid, voxel_size: Coordinate) -> _BlockNodes:
    positions = np.empty((0, 3)) if skeletons is None else skeletons.positions
    voxels = np.floor((positions - np.array(grid.total.begin)) / np.array(voxel_size)).astype(np.int64)
    inside = np.flatnonzero(((voxels >= 0) & (voxels < np.array(grid.total.shape / voxel_size))).all(axis=1))
    block, within = np.divmod(voxels[inside], np.array(grid.block_size / voxel_size))
    index = np.ravel_multi_index(tuple(block.T), tuple(grid.shape))
    order = np.argsort(index, kind="stable")
    return _BlockNodes(inside[order], within[order], np.searchsorted(index[order], np.arange(len(grid) + 1)))


def _found_nodes(skeletons: Skeletons | None, grid: BlockGrid, folder: Path) -> tuple[Skeletons | None, np.ndarray]:
    if skeletons is None:
        return None, np.empty(0, np.uint64)
    tables = [read_columns(path, _NODES) for path in sorted((folder / "nodes").glob("*.parquet"))]
    if not sum(node.size for node, _ in tables):
        raise BadInput(f"{skeletons.source}: no node lies in {grid.total} nm, which is to be scored")
    segments, counted = np.zeros(skeletons.ids.size, np.uint64), np.zeros(skeletons.ids.size, bool)
    for node, segment in tables:
        segments[node], counted[node] = segment, True
    return skeletons.subset(counted), segments[counted]


def _columns(table: Contingency) -> tuple[np.ndarray, ...]:
    return table.segments, table.labels, table.counts


def _read_pairs(folder: Path, block: int) -> Contingency:
    return Contingency(*read_columns(_table(folder, "pairs", block), _PAIRS))


def _table(folder: Path, kind: str, block: int) -> Path:
    return folder / kind / f"{block}.parquet"
