"""The stage that decodes instances from foreground, contours and distances, block by block.

    reads     the predictions of the heads, (1, Z, Y, X) or (Z, Y, X) uint8
    writes    out/segmentation    (Z, Y, X) uint64, 0 is background

    seeds of each block --> joined across blocks --> flooded in rounds --> small instances dropped, and numbered

The result does not depend on the blocks: it is that of the whole volume at once.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.blockwise.grid import Block, BlockGrid, block_aligned_chunk_shape, make_grid
from emsuite.blockwise.run import BlockWorkers, run_blocks
from emsuite.common.files import remove
from emsuite.common.geometry import json_numbers
from emsuite.common.outputs import Output, check_whole, output
from emsuite.io.fingerprint import seen, state_or_voxels
from emsuite.io.regions import check_is_zarr, has_files
from emsuite.io.relabel import relabel
from emsuite.io.volume import Volume, create_volume, fingerprint, open_volume, place_of, split_path
from emsuite.segmentation.instances.decode import DISTANCE
from emsuite.segmentation.instances.find_seeds import find_seeds
from emsuite.segmentation.instances.flood_blocks import FloodBlock, cached_lookup, flood_blocks, total_sizes
from emsuite.segmentation.instances.heads_volume import open_heads
from emsuite.segmentation.instances.scratch import Scratch, write_lookup
from emsuite.segmentation.instances.settings import Decoding, InstanceSettings

_ARRAY, _FLOODED, _SCRATCH = "segmentation", "flooded", ".decoding"
_log = logging.getLogger(__name__)


def decode_instances(
    paths: Mapping[str, Path],
    out: Path,
    options: InstanceSettings,
    *,
    block_size: Sequence[int] | None = None,
    workers: BlockWorkers = 1,
) -> int:
    """Write the instances of predictions to `out`/segmentation; return their number.

    Instances are 1, 2, 3 ... in the order of the first voxel of their seeds. The blocks that a stopped run with the
    same settings finished are kept.

    Args:
        paths: The arrays of `foreground` and `contour`, and of the `distance` if there is one.
        out: The zarr to write.
        options: How instances are decoded.
        block_size: In nm; by default the whole volume at once.
        workers: Processes on this machine, or jobs of Slurm.

    Raises:
        BadInput: A prediction is no uint8 array, they differ in their grids, or the distance is needed and not there.
    """
    check_is_zarr(out)
    for path in paths.values():
        check_whole(path)
    decoding = options.resolve(DISTANCE in paths)
    heads = open_heads(paths, decoding)
    used = {name: paths[name] for name in heads.volumes}
    grid = make_grid(heads.volume, block_size, heads.volume.voxel_size * 0)
    inputs = {name: split_path(path)[0] for name, path in used.items()}
    settings = _manifest_settings(used, decoding, grid, inputs)
    with output(out, settings, inputs=inputs, fingerprint=fingerprint) as segmentation:
        scratch = _prepare(segmentation, heads.volume, grid)
        segmentation.notes["seen"] = {name: seen(path) for name, path in used.items()}
        seeds = find_seeds(used, decoding, scratch, workers, segmentation.run)
        rounds = flood_blocks(FloodBlock(used, decoding, scratch, out / _FLOODED), workers, segmentation.run)
        labels, sizes = total_sizes(scratch)
        is_kept = sizes >= decoding.smallest_instance
        write_lookup(scratch.instances, labels, np.where(is_kept, np.cumsum(is_kept), 0))
        number = int(is_kept.sum())
        cached_lookup.cache_clear()
        process = _WriteBlock(out / _FLOODED, scratch.instances, out / _ARRAY)
        run_blocks("instances", grid, process, workers, scratch.done("instances"), run=segmentation.run)
        segmentation.notes |= {"blocks": len(grid), "seeds": seeds, "rounds": rounds, "instances": number}
        remove(scratch.folder)  # first: a run that finds it continues, and needs the flood
        remove(out / _FLOODED)
    if number == 0:
        _log.warning("%s: holds no instance; %d seeds were large enough", out, seeds)
    return number


def _manifest_settings(
    paths: Mapping[str, Path], decoding: Decoding, grid: BlockGrid, inputs: Mapping[str, Path]
) -> dict[str, Any]:
    """Return what decides on the content of the output, and its blocks; a run with other settings starts over."""
    return {
        **asdict(decoding),
        "block_size": json_numbers(grid.block_size),
        "arrays": {name: place_of(path) for name, path in paths.items()},
        "inputs": {name: fingerprint(path) for name, path in inputs.items()},
        "files": [state_or_voxels(path) for path in paths.values()],
    }


def _prepare(segmentation: Output, volume: Volume, grid: BlockGrid) -> Scratch:
    """Create empty arrays, unless a stopped run left them."""
    path = segmentation.path
    scratch = Scratch(path / _SCRATCH, grid, volume.voxel_size)
    if not (segmentation.resumed and scratch.folder.exists()):
        segmentation.clear()
        chunks, shape = block_aligned_chunk_shape(grid, volume.voxel_size), volume.spatial_shape
        for name in (_FLOODED, _ARRAY):
            create_volume(
                path / name, shape, np.uint64, volume.voxel_size, volume.offset, chunks, is_image=name == _ARRAY
            )
        scratch.folder.mkdir()
    return scratch


@dataclass(frozen=True)
class _WriteBlock:
    """Writes the instances of one block. It holds paths, so that it can be sent to workers."""

    flooded: Path
    instances: Path
    out: Path

    def is_whole(self, block: Block) -> bool:
        """See `run_blocks`."""
        return has_files(open_volume(self.out, "r+"), block.write)

    def __call__(self, block: Block) -> None:
        labels = open_volume(self.flooded, "r+").read(block.write)  # it lies in an output that is not finished
        open_volume(self.out, "r+").write(block.write, relabel(labels, *cached_lookup(self.instances)))
