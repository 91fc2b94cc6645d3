"""The voxels of an export in neuroglancer's precomputed format: a copy, and coarser scales made from it.

    x.precomputed/8_8_8      the voxels, packed as compressed_segmentation
    x.precomputed/16_16_16   each voxel is the most frequent of a window; and so on, until one chunk holds a scale

The first voxel of a scale must lie at a whole number of its voxels. A window that begins before the region is cut.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emsuite.blockwise.grid import Block, BlockGrid
from emsuite.blockwise.run import BlockWorkers, run_blocks
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate, Roi, json_numbers, on_grid
from emsuite.data.downsample import downsample, factors
from emsuite.io.chunks import CHUNK, chunk_length
from emsuite.io.regions import has_files
from emsuite.io.values import fitted
from emsuite.io.volume import Volume, create_volume, open_volume

_CHUNKS = 2  # along each axis of a block


def check_scales(volume: Volume, region: Roi) -> None:
    """Raise BadInput if the format cannot hold the position of a region (nm)."""
    size = volume.voxel_size
    if any(on_grid(region.begin, size) % size):
        raise BadInput(
            f"{volume.path}: begins at {region.begin} nm, expected whole voxels of {size} nm; "
            "precomputed volumes hold no other positions"
        )


def write_scales(volume: Volume, out: Path, region: Roi, state: Path, workers: BlockWorkers, run: str) -> None:
    """Write a region (nm) of a segmentation, and its coarser scales; a stopped run is continued.

    Args:
        volume: Integers (Z, Y, X).
        out: A container, `x.precomputed`.
        region: In nm.
        state: The folder that keeps the state of a run.
        workers: Processes on this machine, or jobs of Slurm.
        run: The id of the run, see `run_blocks`.
    """
    dtype = np.dtype(np.uint32 if volume.dtype.itemsize < 4 or volume.dtype == np.uint32 else np.uint64)
    finer: Path | None = None
    for number, (size, window, roi) in enumerate(_scales(volume.voxel_size, region)):
        path, done = out / "_".join(map(str, reversed(json_numbers(size)))), state / f"scale{number}"
        shape = [int(n) for n in roi.shape / size]
        chunks = [chunk_length(n) for n in shape]
        if not done.exists():
            create_volume(path, shape, dtype, size, roi.begin, chunks)
            done.mkdir(parents=True)
        process = _CopyBlock(volume.path, path) if finer is None else _CoarserBlock(finer, path, window)
        grid = BlockGrid(roi, Coordinate(chunks) * _CHUNKS * size, size * 0)
        run_blocks(f"scale {number}", grid, process, workers, done, run=run)
        finer = path


def _scales(size: Coordinate, roi: Roi) -> Iterator[tuple[Coordinate, tuple[int, ...], Roi]]:
    """Yield the voxel size of each scale, its window against the scale before, and its region, on its own grid."""
    window: tuple[int, ...] = (1, 1, 1)
    while True:
        yield size, window, roi
        shape = [int(n) for n in roi.shape / size]
        window = factors(tuple(size), shape)
        if max(shape) <= CHUNK or max(window) == 1:
            return
        size = size * Coordinate(window)
        begin = roi.begin // size * size
        roi = Roi(begin, -(-(roi.end - begin) // size) * size)


@dataclass(frozen=True)
class _CopyBlock:
    """Copies one block. It holds paths, not open arrays, so that it can be sent to workers."""

    source: Path
    out: Path

    def is_whole(self, block: Block) -> bool:
        """See `run_blocks`."""
        return has_files(open_volume(self.out, "r+"), block.write)

    def __call__(self, block: Block) -> None:
        out = open_volume(self.out, "r+")
        out.write(block.write, fitted(self.source, open_volume(self.source).read(block.write), out.dtype))


@dataclass(frozen=True)
class _CoarserBlock:
    """Makes one block of a coarser scale. It holds paths, not open arrays, so that it can be sent to workers."""

    finer: Path
    out: Path
    window: tuple[int, ...]

    def is_whole(self, block: Block) -> bool:
        """See `run_blocks`."""
        return has_files(open_volume(self.out, "r+"), block.write)

    def __call__(self, block: Block) -> None:
        finer = open_volume(self.finer, "r+")  # mode r is refused while a run writes the container
        region = block.write.intersect(finer.roi)
        missing = [(int(n), 0) for n in (region.begin - block.write.begin) / finer.voxel_size]
        # a window that begins before the region: its voxels count twice, all of them
        voxels = np.pad(finer.read(region), missing, mode="edge")
        open_volume(self.out, "r+").write(block.write, downsample(voxels, self.window, "mode"))
