"""New volumes from others: copies and changes of regions, written region by region into a zarr or HDF5 container.

zarr     blocks by workers; a stopped run is continued
HDF5     one process; a stopped run begins again
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from emsuite.blockwise.grid import Block, BlockGrid
from emsuite.blockwise.run import BlockWorkers, run_blocks
from emsuite.common.errors import BadInput
from emsuite.common.files import remove
from emsuite.common.geometry import Coordinate, Roi
from emsuite.common.outputs import check_whole, is_finished, output
from emsuite.data.labels_mask import check_mask_of, mask_beside
from emsuite.io.chunks import CHUNK, chunk_length
from emsuite.io.fingerprint import voxels_or_times
from emsuite.io.regions import has_files
from emsuite.io.single_file import is_single_file, plan_array, writing_arrays
from emsuite.io.volume import MASK, Volume, create_volume, fingerprint, open_volume, split_path

_BLOCK = 2 * CHUNK
"""Voxels along each axis of a block."""


class Change(Protocol):
    """A change of voxels, which can be sent to workers."""

    @property
    def margin(self) -> tuple[int, int, int]:
        """Voxels around a block, z y x, on which it depends."""

    def __call__(self, voxels: np.ndarray, read: Roi, write: Roi, volume: Volume) -> np.ndarray:
        """Return the voxels of `write` from those of `read`, which is cut at the faces of `volume` (voxels)."""


@dataclass(frozen=True)
class DerivedArray:
    """An array to write: a region of another one, as it is or changed. It holds paths, to be sent to workers."""

    source: Path
    roi: Roi
    """nm."""
    dtype: np.dtype
    change: Change | None = None

    def around(self, region: Roi) -> Roi:
        """Return the region of the source on which a region depends, nm."""
        if self.change is None:
            return region
        volume = open_volume(self.source)
        margin = Coordinate(self.change.margin) * volume.voxel_size
        return region.grow(margin, margin).intersect(volume.roi)

    def read(self, region: Roi) -> np.ndarray:
        """Return its voxels (Z, Y, X) at a region, nm."""
        volume, around = open_volume(self.source), self.around(region)
        if self.change is None:
            return _plain(volume.read(around))
        read, write = (
            Roi((each.offset - volume.offset) / volume.voxel_size, each.shape / volume.voxel_size)
            for each in (around, region)
        )
        return self.change(_plain(volume.read(around)), read, write, volume).astype(self.dtype, copy=False)

    def reader(self) -> Callable[[tuple[slice, ...]], np.ndarray]:
        """Return what reads a box of voxels from the first of its region."""
        size = open_volume(self.source).voxel_size

        def read(box: tuple[slice, ...]) -> np.ndarray:
            begin = Coordinate(part.start for part in box) * size
            shape = Coordinate(part.stop - part.start for part in box) * size
            return self.read(Roi(self.roi.offset + begin, shape))

        return read


def carried_mask(labels: Path, region: Roi) -> dict[str, DerivedArray]:
    """Return `mask_beside` labels in a region (nm), as it is, by its name; raise BadInput as `check_mask_of`."""
    path = mask_beside(labels)
    if path is None:
        return {}
    mask = open_volume(path)
    check_mask_of(mask, region)
    return {MASK: DerivedArray(mask.path, region, mask.dtype)}


def write_derived(
    to: Path,
    arrays: Mapping[str, DerivedArray],
    settings: Mapping[str, Any],
    workers: BlockWorkers = 1,
    seed: int | None = None,
) -> bool:
    """Write a container with arrays that are derived from others; return whether anything was left to write.

    Args:
        to: The container, zarr or HDF5. One that was made with other settings is replaced.
        arrays: By their names in it.
        settings: All that decides the voxels beside the sources.
        workers: Of a zarr. The result does not depend on them.
        seed: For the record.

    Raises:
        BadInput: `to` cannot be written, or holds what this suite did not write; or a source has lost files.
    """
    _check_target(to, arrays)
    for array in arrays.values():
        check_whole(array.source)
    inputs = {name: array.source for name, array in arrays.items()}
    sources = {name: voxels_or_times(open_volume(a.source), a.around(a.roi)) for name, a in arrays.items()}
    settings = dict(settings) | {"sources": sources}
    if is_finished(to, settings):
        return False
    with output(to, settings, inputs=inputs, seed=seed, fingerprint=fingerprint) as out:
        if is_single_file(to):
            with writing_arrays(
                to, {name: (_planned(to / name, each), each.reader()) for name, each in arrays.items()}
            ):
                pass
        else:
            _write_blocks(to, arrays, workers, out)
    return True


def _write_blocks(to: Path, arrays: Mapping[str, DerivedArray], workers: BlockWorkers, out: Any) -> None:
    done = to / ".blocks"
    if not (out.resumed and done.exists()):
        out.clear(*sorted({name.split("/")[0] for name in arrays}))
        for name, array in arrays.items():
            size = open_volume(array.source).voxel_size
            shape = [int(n) for n in array.roi.shape / size]
            create_volume(to / name, shape, array.dtype, size, array.roi.offset, [chunk_length(n) for n in shape])
    for number, (name, array) in enumerate(arrays.items()):
        size = open_volume(array.source).voxel_size
        grid = BlockGrid(array.roi, size * Coordinate([_BLOCK] * 3), size * 0)
        run_blocks(Path(name).name, grid, _WriteBlock(array, to / name), workers, done / str(number), run=out.run)
    remove(done)


def _check_target(to: Path, arrays: Mapping[str, DerivedArray]) -> None:
    if to.suffix not in (".zarr", ".h5", ".hdf", ".hdf5"):
        raise BadInput(f"{to}: expected a container to write, as VOLUME.zarr or VOLUME.h5")
    for array in arrays.values():
        container = split_path(array.source)[0]
        if to.resolve() == container.resolve():
            raise BadInput(f"{to}: is the volume to read, expected another")


def _planned(path: Path, array: DerivedArray) -> Any:
    volume = open_volume(array.source)
    shape = tuple(int(n) for n in array.roi.shape / volume.voxel_size)
    chunks = tuple(map(chunk_length, shape))
    return plan_array(path, shape, array.dtype, volume, array.roi.offset, chunks)


def _plain(voxels: np.ndarray) -> np.ndarray:
    """Return voxels without an axis of a single channel."""
    return voxels[0] if voxels.ndim == 4 else voxels


@dataclass(frozen=True)
class _WriteBlock:
    """Writes one block of an array."""

    array: DerivedArray
    to: Path

    def is_whole(self, block: Block) -> bool:
        """See `run_blocks`."""
        return has_files(open_volume(self.to, "r+"), block.write)

    def __call__(self, block: Block) -> None:
        open_volume(self.to, "r+").write(block.write, self.array.read(block.write))
