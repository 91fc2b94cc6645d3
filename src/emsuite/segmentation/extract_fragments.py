"""The stage that makes fragments: block by block, from an array of affinities to a volume and a table of nodes.

    out/fragments.zarr/fragments  (Z, Y, X) uint64       out/graph/nodes/<block>.parquet

What is heavy to import is imported where blocks are done, since the stage itself only waits for its workers.

A block numbers its fragments from `block * voxels in a block + 1` up: ids are unique, and tell the block.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from funlib.geometry import Coordinate, Roi

from emsuite.blockwise.grid import Block, BlockGrid, chunk_shape, make_grid
from emsuite.blockwise.run import Workers, run_blocks
from emsuite.common.errors import BadInput
from emsuite.common.files import remove
from emsuite.common.outputs import Output, output
from emsuite.io.volume import Volume, create_volume, fingerprint, open_volume, split_path
from emsuite.segmentation.affinity_volume import AffinityVolume, affinity_volume
from emsuite.segmentation.graph_tables import digest, write_block
from emsuite.segmentation.region_graph import Nodes
from emsuite.segmentation.settings import FragmentSettings


def extract_fragments(
    affs: Path,
    out: Path,
    options: FragmentSettings,
    *,
    mask: Path | None = None,
    block_size: Sequence[int] | None = None,
    context: Sequence[int] | None = None,
    workers: Workers = 1,
) -> int:
    """Write the fragments of an array of affinities below `out`, and return their number.

    `mask` (Z, Y, X), of the same voxel size: background where it is 0 and where it does not reach. `block_size` and
    `context` in nm, see `make_grid`. What a stopped run of the same settings did is kept. Raises BadInput.
    """
    source = affinity_volume(open_volume(affs))
    grid = make_grid(source.volume, block_size, context)
    inputs = {"affs": split_path(affs)[0]} | ({} if mask is None else {"mask": split_path(mask)[0]})
    _open_mask(mask, source)
    settings = {
        **options.model_dump(),
        "block_size": list(grid.block_size),
        "context": list(grid.context),
        "affs": str(affs.resolve()),
        "mask": mask and str(mask.resolve()),
        "inputs": {name: fingerprint(path) for name, path in inputs.items()},
    }
    volume_path, nodes_path = out / "fragments.zarr", out / "graph" / "nodes"
    with (
        output(volume_path, settings, inputs=inputs, fingerprint=fingerprint) as made,
        output(nodes_path, settings, inputs=inputs, fingerprint=fingerprint) as nodes,
    ):
        done = _prepare(made, nodes, source.volume, grid)
        process = _FragmentBlock(affs, mask, volume_path / "fragments", nodes_path, grid, options)
        run_blocks("fragments", grid, process, workers, done)
        number, made_from = digest(nodes_path, len(grid))
        _check_boundaries(source, grid, number, options)
        nodes.notes |= {"blocks": len(grid), "fragments": number, "digest": made_from}
        made.notes |= nodes.notes
        remove(done)
    return number


def voxels_per_block(grid: BlockGrid, voxel_size: Coordinate) -> int:
    """How far apart the ids of neighbouring blocks are."""
    return int(np.prod(grid.block_size / voxel_size))


@dataclass(frozen=True)
class _FragmentBlock:
    """What is done to one block; opened by path, so that it can be sent to a worker."""

    affs: Path
    mask: Path | None
    fragments: Path
    nodes: Path
    grid: BlockGrid
    options: FragmentSettings

    def warm_up(self) -> None:
        """Load the compiled loops."""
        from emsuite.segmentation.fragments import find_fragments

        find_fragments(np.zeros((3, 2, 2, 2), np.uint8), FragmentSettings(flood=self.options.flood))

    def __call__(self, block: Block) -> None:
        from emsuite.segmentation.fragments import find_fragments

        source = affinity_volume(open_volume(self.affs))
        voxel_size = source.volume.voxel_size
        mask = _open_mask(self.mask, source)
        masked = None if mask is None else _read_mask(mask, block.read)
        begin = (block.write.begin - block.read.begin) / voxel_size
        end = begin + block.write.shape / voxel_size
        inner = tuple(slice(b, e) for b, e in zip(begin, end, strict=True))
        affs = source.read_all(block.read) if self.options.seeds == "mutex" else source.read(block.read)
        found = find_fragments(affs, self.options, masked, inner, source.offsets[: len(affs)])
        first = block.index * voxels_per_block(self.grid, voxel_size)
        ids = np.where(found > 0, found + np.uint64(first), np.uint64(0))
        open_volume(self.fragments, "r+").write(block.write, ids)
        write_block(self.nodes, block.index, _nodes(found, first, block.write, voxel_size))


def _prepare(made: Output, nodes: Output, affs: Volume, grid: BlockGrid) -> Path:
    """Create the volume, unless both outputs are there from a stopped run; returns the folder of done blocks."""
    done = made.path / ".blocks"
    if not (made.resumed and nodes.resumed and done.exists()):
        remove(made.path)
        remove(nodes.path)
        shape, chunks = affs.spatial_shape, chunk_shape(grid, affs.voxel_size)
        create_volume(made.path / "fragments", shape, np.uint64, affs.voxel_size, affs.offset, chunks)
        nodes.path.mkdir(parents=True)
    return done


def _check_boundaries(affs: AffinityVolume, grid: BlockGrid, number: int, options: FragmentSettings) -> None:
    """Refuse affinities that are 0 or 1 everywhere: what is made from them looks like a segmentation, but is none."""
    path = affs.volume.path
    if number == 0:
        raise BadInput(
            f"{path}: yields no fragment; the affinities are 0, below filter_fragments, or masked everywhere"
        )
    alike = len(grid) * (grid.block_size[0] // affs.volume.voxel_size[0] if options.in_sections else 1)
    if number <= alike and all((affs.read(block.write) == 255).all() for block in grid):
        raise BadInput(f"{path}: all affinities are 1, expected lower ones where neurons touch")


def _nodes(found: np.ndarray, first: int, roi: Roi, voxel_size: Coordinate) -> Nodes:
    import cc3d

    statistics: Any = cc3d.statistics(np.ascontiguousarray(found), no_slice_conversion=True)
    size = statistics["voxel_counts"][1:].astype(np.int64)
    centres = (statistics["centroids"][1:] + 0.5) * np.array(voxel_size) + np.array(roi.begin)
    ids = np.arange(1, size.size + 1, dtype=np.uint64) + np.uint64(first)
    return Nodes(ids, centres[:, 0], centres[:, 1], centres[:, 2], size)


def _open_mask(mask: Path | None, affs: AffinityVolume) -> Volume | None:
    if mask is None:
        return None
    volume, wanted = open_volume(mask), affs.volume
    if volume.channels is not None or volume.voxel_size != wanted.voxel_size:
        raise BadInput(
            f"{mask}: shape {volume.shape}, voxel size {tuple(volume.voxel_size)} nm, expected a mask (z, y, x) with "
            f"the affinities' {tuple(wanted.voxel_size)} nm"
        )
    if not volume.roi.intersects(wanted.roi):
        raise BadInput(f"{mask}: covers {volume.roi} nm, none of the affinities' {wanted.roi} nm")
    return volume


def _read_mask(mask: Volume, roi: Roi) -> np.ndarray:
    """The mask in `roi`, 0 where it does not reach."""
    whole = np.zeros(roi.shape / mask.voxel_size, bool)
    common = mask.roi.intersect(roi)
    if not common.empty:
        begin = (common.begin - roi.begin) / mask.voxel_size
        end = begin + common.shape / mask.voxel_size
        whole[tuple(slice(b, e) for b, e in zip(begin, end, strict=True))] = mask.read(common) != 0
    return whole
