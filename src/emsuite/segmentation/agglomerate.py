"""The stage that scores edges: block by block with context, from fragments and affinities to tables of edges.

An edge belongs to the block of its smaller id. As a fragment lies in one block, all faces of the contact are in that
block or on the far side of its border, so one voxel of context shows them whole; what its neighbours would have
scored it is not asked. The grid is that of the fragments.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emsuite.blockwise.grid import Block, BlockGrid, make_grid
from emsuite.blockwise.run import Workers, run_blocks
from emsuite.common.errors import BadInput
from emsuite.common.files import remove
from emsuite.common.outputs import output
from emsuite.io.volume import Volume, fingerprint, open_volume, split_path
from emsuite.segmentation.affinity_volume import affinity_volume
from emsuite.segmentation.extract_fragments import voxels_per_block
from emsuite.segmentation.graph_tables import digest, fragments_manifest, write_block
from emsuite.segmentation.merge_hierarchy import MERGE_FUNCTIONS
from emsuite.segmentation.region_graph import Edges


def agglomerate_fragments(
    affs: Path,
    fragments: Path,
    out: Path,
    merge_function: str,
    *,
    context: Sequence[int] | None = None,
    workers: Workers = 1,
) -> int:
    """Write the edges between `fragments`, scored by `affs`, to the folder `out`, and return their number.

    `context` in nm (default: a quarter of the block) is read around each block. What a stopped run of the same
    settings did is kept. Raises BadInput for arrays that do not fit, or fragments that another tool made.
    """
    if merge_function not in MERGE_FUNCTIONS:
        raise BadInput(f"merge function {merge_function!r}: expected one of {', '.join(MERGE_FUNCTIONS)}")
    volume, origin = open_volume(fragments), fragments_manifest(fragments)
    _check_fit(volume, affinity_volume(open_volume(affs)).volume)
    grid = make_grid(volume, origin["settings"]["block_size"], context)
    if len(grid) > 1 and min(grid.context / volume.voxel_size) < 1:
        raise BadInput(f"context {tuple(grid.context)} nm: expected at least a voxel, {tuple(volume.voxel_size)} nm")
    inputs = {"affs": split_path(affs)[0], "fragments": split_path(fragments)[0]}
    settings = {
        "merge_function": merge_function,
        "context": list(grid.context),
        "affs": str(affs.resolve()),
        "fragments": str(fragments.resolve()),
        "inputs": {"affs": fingerprint(inputs["affs"]), "fragments": origin["digest"]},
    }
    with output(out, settings, inputs=inputs, fingerprint=fingerprint) as made:
        done = out / ".blocks"
        run_blocks("agglomerate", grid, _EdgeBlock(affs, fragments, out, grid, merge_function), workers, done)
        number, _ = digest(out, len(grid))
        made.notes |= {"blocks": len(grid), "edges": number, "fragments_digest": origin["digest"]}
        remove(done)
    return number


@dataclass(frozen=True)
class _EdgeBlock:
    """What is done to one block; opened by path, so that it can be sent to a worker."""

    affs: Path
    fragments: Path
    out: Path
    grid: BlockGrid
    merge_function: str

    def warm_up(self) -> None:
        """Load the compiled loops, and waterz."""
        from emsuite.segmentation.merge_hierarchy import agglomerate

        agglomerate(np.zeros((3, 1, 1, 2), np.uint8), np.array([[[1, 2]]], np.uint32), self.merge_function)

    def __call__(self, block: Block) -> None:
        import fastremap

        from emsuite.segmentation.merge_hierarchy import agglomerate

        volume = open_volume(self.fragments)
        labels, numbers = fastremap.renumber(volume.read(block.read), preserve_zero=True)
        ids = np.zeros(len(numbers) + 1, np.uint64)
        ids[np.array(list(numbers.values()), int)] = list(numbers.keys())
        affs = affinity_volume(open_volume(self.affs)).read(block.read)
        edges = agglomerate(affs, labels, self.merge_function)
        first = block.index * voxels_per_block(self.grid, volume.voxel_size)
        last = first + voxels_per_block(self.grid, volume.voxel_size)
        write_block(self.out, block.index, _owned(edges, ids, first, last))


def _owned(edges: Edges, ids: np.ndarray, first: int, last: int) -> Edges:
    """The edges whose smaller id is in (first, last], with the ids of the whole volume, sorted."""
    a, b = ids[edges.u], ids[edges.v]
    u, v = np.minimum(a, b), np.maximum(a, b)
    owned = np.flatnonzero((u > first) & (u <= last))
    owned = owned[np.lexsort((v[owned], u[owned]))]
    return Edges(u[owned], v[owned], edges.score[owned], edges.contact[owned])


def _check_fit(fragments: Volume, affs: Volume) -> None:
    if fragments.channels is not None or fragments.dtype != np.uint64:
        raise BadInput(f"{fragments.path}: {fragments.dtype} {fragments.shape}, expected fragments, uint64 (z, y, x)")
    if fragments.voxel_size != affs.voxel_size or fragments.roi != affs.roi:
        raise BadInput(
            f"{fragments.path}: covers {fragments.roi} nm with voxels of {tuple(fragments.voxel_size)}, expected what "
            f"{affs.path} covers, {affs.roi} with {tuple(affs.voxel_size)}"
        )
