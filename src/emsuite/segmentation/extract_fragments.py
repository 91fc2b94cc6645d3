"""The stage that makes fragments (supervoxels) from affinities, block by block.

    reads     affinities (C, Z, Y, X), and a mask (Z, Y, X) if there is one
    writes    out/fragments.zarr/fragments     (Z, Y, X) uint64, 0 is background
              out/graph/nodes/<block>.parquet  a row per fragment, see `region_graph.Nodes`

Both outputs get a manifest. Later stages read the block size and a digest of the nodes from the manifest of
fragments.zarr: they work on the same blocks, and refuse tables that were made from other fragments. It also says which
affinities were `seen`, see `emsuite.io.fingerprint`: agglomerate tells of others.

The process that starts this stage only waits for its workers. Modules that are slow to import are therefore imported
in the functions that the workers call.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.blockwise.grid import Block, BlockGrid, block_aligned_chunk_shape, make_grid
from emsuite.blockwise.run import BlockWorkers, run_blocks
from emsuite.common.errors import BadInput
from emsuite.common.files import remove
from emsuite.common.geometry import Coordinate, Roi, json_numbers
from emsuite.common.outputs import Output, check_whole, output
from emsuite.io.fingerprint import seen, state_or_voxels
from emsuite.io.regions import has_files
from emsuite.io.volume import Volume, create_volume, fingerprint, open_volume, place_of, split_path
from emsuite.segmentation.affinity_volume import AffinityVolume, affinity_volume
from emsuite.segmentation.graph_tables import digest_tables, has_block, write_block
from emsuite.segmentation.region_graph import Nodes, ids_of_block, to_volume_ids
from emsuite.segmentation.settings import FragmentSettings


def extract_fragments(
    affs: Path,
    out: Path,
    options: FragmentSettings,
    *,
    mask: Path | None = None,
    block_size: Sequence[int] | None = None,
    context: Sequence[int] | None = None,
    workers: BlockWorkers = 1,
) -> int:
    """Write fragments.zarr and graph/nodes below `out`; return the number of fragments.

    The blocks that a stopped run with the same settings finished are kept.

    Args:
        affs: The array of affinities (C, Z, Y, X), uint8 or floats in [0, 1].
        out: The folder for both outputs.
        options: How fragments are made.
        mask: An array (Z, Y, X) with the voxel size of the affinities. Where it is 0, and where it does not reach,
            affinities count as 0 and voxels become background.
        block_size, context: In nm, see `make_grid`. The manifest keeps the block size for the later stages.
        workers: Processes on this machine, or jobs of Slurm.

    Raises:
        BadInput: If the arrays cannot be used, or the affinities are 0 or 1 everywhere.
    """
    check_whole(affs)
    source = affinity_volume(open_volume(affs), options.replace_sections)
    grid = make_grid(source.volume, block_size, context)
    inputs = {"affs": split_path(affs)[0]} | ({} if mask is None else {"mask": split_path(mask)[0]})
    _open_mask(mask, source)
    settings = _manifest_settings(affs, mask, options, grid, inputs)
    volume_path, nodes_path = out / "fragments.zarr", out / "graph" / "nodes"
    with (
        output(volume_path, settings, inputs=inputs, fingerprint=fingerprint) as volume,
        output(nodes_path, settings, inputs=inputs, fingerprint=fingerprint) as nodes,
    ):
        done_folder = _prepare(volume, nodes, source.volume, grid)
        volume.notes["seen"] = seen(affs)
        process = _FragmentBlock(affs, mask, volume_path / "fragments", nodes_path, grid, options)
        run_blocks("fragments", grid, process, workers, done_folder, run=volume.run)
        number, digest = digest_tables(nodes_path, len(grid))
        _check_boundaries(source, grid, number, options)
        nodes.notes |= {"blocks": len(grid), "fragments": number, "digest": digest}
        volume.notes |= nodes.notes
        remove(done_folder)
    return number


def _manifest_settings(
    affs: Path, mask: Path | None, options: FragmentSettings, grid: BlockGrid, inputs: Mapping[str, Path]
) -> dict[str, Any]:
    """Return what decides on the content of the outputs; a run with other settings starts over."""
    # earlier versions masked fragments alone: what they left is not what this version makes
    masked = {} if mask is None else {"masked": ["affinities", "fragments"]}
    # settings that earlier versions did not know are there if they are set
    return {
        **masked,
        **options.model_dump(exclude_none=True),
        "block_size": json_numbers(grid.block_size),
        "context": json_numbers(grid.context),
        "affs": place_of(affs),
        "mask": mask and place_of(mask),
        "inputs": {name: fingerprint(path) for name, path in inputs.items()},
        "files": [state_or_voxels(path) for path in (affs, mask) if path],
    }


@dataclass(frozen=True)
class _FragmentBlock:
    """Makes the fragments of one block. It holds paths, not open arrays, so that it can be sent to workers."""

    affs: Path
    mask: Path | None
    fragments: Path
    nodes: Path
    grid: BlockGrid
    options: FragmentSettings

    def warm_up(self) -> None:
        """Compile or load the numba loops, before workers are forked."""
        from emsuite.segmentation.fragments import find_fragments

        find_fragments(np.zeros((3, 2, 2, 2), np.uint8), FragmentSettings(flood=self.options.flood))

    def is_whole(self, block: Block) -> bool:
        """See `run_blocks`."""
        return has_files(open_volume(self.fragments, "r+"), block.write) and has_block(self.nodes, block.index)

    def __call__(self, block: Block) -> None:
        from emsuite.segmentation.fragments import find_fragments

        source = affinity_volume(open_volume(self.affs), self.options.replace_sections)
        voxel_size = source.volume.voxel_size
        mask = _open_mask(self.mask, source)
        mask_voxels = _read_mask(mask, source, block.read)
        begin_vx = (block.write.begin - block.read.begin) / voxel_size
        end_vx = begin_vx + block.write.shape / voxel_size
        inner = tuple(slice(b, e) for b, e in zip(begin_vx, end_vx, strict=True))
        affs = source.read_all(block.read) if self.options.seeds == "mutex" else source.read(block.read)
        labels = find_fragments(affs, self.options, mask_voxels, inner, source.offsets[: len(affs)])
        ids = ids_of_block(block.index, self.grid, voxel_size)
        open_volume(self.fragments, "r+").write(block.write, to_volume_ids(labels, ids))
        write_block(self.nodes, block.index, _nodes(labels, ids, block.write, voxel_size))


def _prepare(volume: Output, nodes: Output, affs: Volume, grid: BlockGrid) -> Path:
    """Create empty outputs, unless a stopped run left both; return the folder with the markers of finished blocks."""
    done_folder = volume.path / ".blocks"
    if not (volume.resumed and nodes.resumed and done_folder.exists()):
        volume.clear("fragments")
        nodes.clear()
        shape, chunks = affs.spatial_shape, block_aligned_chunk_shape(grid, affs.voxel_size)
        create_volume(volume.path / "fragments", shape, np.uint64, affs.voxel_size, affs.offset, chunks)
    return done_folder


def _check_boundaries(affs: AffinityVolume, grid: BlockGrid, number: int, options: FragmentSettings) -> None:
    """Raise BadInput for affinities that are 0 or 1 everywhere: their fragments say nothing about neurons."""
    path = affs.volume.path
    if number == 0:
        raise BadInput(
            f"{path}: yields no fragment; the affinities are 0, below filter_fragments, or masked everywhere"
        )
    # without any boundary, each block is one fragment, or one per section
    without_boundary = len(grid) * (grid.block_size[0] // affs.volume.voxel_size[0] if options.in_sections else 1)
    if number <= without_boundary and all((affs.read(block.write) == 255).all() for block in grid):
        raise BadInput(f"{path}: all affinities are 1, expected lower ones where neurons touch")


def _nodes(labels: np.ndarray, ids: range, roi: Roi, voxel_size: Coordinate) -> Nodes:
    """Return the nodes of one block, for fragments `labels` from 1 up in `roi` (nm) and the `ids` of the block."""
    import cc3d

    statistics: Any = cc3d.statistics(np.ascontiguousarray(labels), no_slice_conversion=True)
    size = statistics["voxel_counts"][1:].astype(np.int64)
    centres_nm = (statistics["centroids"][1:] + 0.5) * np.array(voxel_size, float) + np.array(roi.begin, float)
    numbers = np.arange(1, size.size + 1, dtype=np.uint64)
    return Nodes(to_volume_ids(numbers, ids), centres_nm[:, 0], centres_nm[:, 1], centres_nm[:, 2], size)


def _open_mask(mask: Path | None, affs: AffinityVolume) -> Volume | None:
    if mask is None:
        return None
    volume, reference = open_volume(mask), affs.volume
    if volume.channels is not None or volume.voxel_size != reference.voxel_size:
        raise BadInput(
            f"{mask}: shape {volume.shape}, voxel size {volume.voxel_size} nm, expected a mask (z, y, x) with "
            f"the affinities' {reference.voxel_size} nm"
        )
    if not volume.roi.intersects(reference.roi):
        raise BadInput(f"{mask}: covers {volume.roi} nm, none of the affinities' {reference.roi} nm")
    return volume


def _read_mask(mask: Volume | None, affs: AffinityVolume, roi: Roi) -> np.ndarray | None:
    """Return the mask in `roi` (nm) as bool, False in sections that get no fragments; None if all voxels do."""
    kept, voxels = affs.keeps(roi), None if mask is None else _stored_mask(mask, roi)
    if kept is None:
        return voxels
    everywhere = np.ones(roi.shape / affs.volume.voxel_size, bool) if voxels is None else voxels
    return everywhere & kept[:, None, None]


def _stored_mask(mask: Volume, roi: Roi) -> np.ndarray:
    """Return the mask in `roi` (nm) as bool, False where the volume `mask` does not reach."""
    voxels = np.zeros(roi.shape / mask.voxel_size, bool)
    covered = mask.roi.intersect(roi)
    if not covered.empty:
        begin_vx = (covered.begin - roi.begin) / mask.voxel_size
        end_vx = begin_vx + covered.shape / mask.voxel_size
        voxels[tuple(slice(b, e) for b, e in zip(begin_vx, end_vx, strict=True))] = mask.read(covered) != 0
    return voxels
