"""Pyramids: coarser levels of an array, written beside it block by block.

    x.zarr/volumes/raw                         reads, level 0
    x.zarr/volumes/raw_levels/1, 2, ...        writes; each level is made from the one before it
    x.zarr.volumes.raw_levels.manifest.json    the record; a folder of that name keeps the state of a run

The metadata of the group list the levels when all of them are complete.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emsuite.blockwise.grid import Block, make_grid
from emsuite.blockwise.run import BlockWorkers, run_blocks
from emsuite.common.errors import BadInput
from emsuite.common.files import remove
from emsuite.common.geometry import Coordinate
from emsuite.common.outputs import check_whole, is_copy, manifest_path, output, wrote_earlier
from emsuite.common.state.origins import record_names
from emsuite.common.state.ownership import is_newer, mark, unmark, wrote
from emsuite.data.downsample import Kind, downsample, factors, kind_for
from emsuite.io.chunks import CHUNK, chunk_length
from emsuite.io.fingerprint import origin_of
from emsuite.io.levels import check_takes_levels, levels_folder, list_levels
from emsuite.io.regions import has_files
from emsuite.io.single_file import is_single_file
from emsuite.io.volume import Volume, create_volume, fingerprint, open_volume, split_path

_MOST_BYTES = 2**28
"""Of the finer voxels that one block reads, unless a block of one chunk needs more."""


def make_pyramid(
    path: Path, *, levels: int | None = None, kind: Kind | None = None, workers: BlockWorkers = 1
) -> list[Path]:
    """Write coarser levels of an array, and list them in the metadata of its group (OME-NGFF).

    Args:
        path: An array in zarr.
        levels: The number of coarser levels; None: until no axis is longer than a chunk.
        kind: How voxels are merged; None: by `kind_for`.
        workers: Processes on this machine, or jobs of Slurm. The result does not depend on them.

    Returns:
        The arrays of the coarser levels, in order.

    Raises:
        BadInput: The array is missing or unfinished, cannot be written beside, or is too small for any level.
    """
    path = Path(path)
    check_whole(path)
    volume = open_volume(path)
    check_takes_levels(volume)
    how = kind or kind_for(volume.dtype)
    windows = _windows(volume, levels)
    if not windows:
        raise BadInput(f"{path}: {volume.shape} voxels are one chunk, expected more for a pyramid (or --levels 1)")
    check_levels(path)
    record = record_path(path, "_levels")
    settings = {"kind": how, "windows": windows, "volume": origin_of(path)}
    with output(record, settings, inputs={"volume": path}, fingerprint=fingerprint) as out:
        if not (out.resumed and record.exists()):
            list_levels(volume, [], "")  # of an earlier pyramid
            remove_levels(path)
            out.clear()
        mark(levels_folder(path))
        coarser = [volume]
        for number, window in enumerate(windows, 1):
            coarser.append(_write_level(coarser[-1], number, window, how, volume, record, workers, out.run))
        list_levels(volume, coarser[1:], how)
        out.notes["wrote"] = wrote(levels_folder(path))
        remove(record)
    unmark(levels_folder(path))
    return [level.path for level in coarser[1:]]


def check_levels(array: Path) -> None:
    """Raise BadInput if the folder of an array's coarser levels holds something that `make_pyramid` did not write."""
    folder, record = levels_folder(array), record_path(array, "_levels")
    if folder.exists() and not is_copy(folder, record):
        raise BadInput(f"{folder}: exists but this suite did not write it; remove it or choose another name")
    if folder.exists() and is_newer(folder, wrote_earlier(record), manifest_path(record)):
        raise BadInput(f"{folder}: is newer than its record, as if edited; remove it or choose another name")


def remove_levels(array: Path) -> None:
    """Remove the coarser levels of an array that `check_levels` has looked at."""
    folder, record = levels_folder(array), record_path(array, "_levels")
    remove(folder)
    remove(manifest_path(record))


def check_holds_levels(array: Path) -> None:
    """Raise BadInput if an array that is to be written lies in a format without levels."""
    if is_single_file(array):
        raise BadInput(f"{array}: HDF5 and TIFF have no coarser levels, expected --levels with zarr alone")


def record_path(array: Path, purpose: str = "") -> Path:
    """Return the path, beside the container of an array, at which the state of what is written there is recorded."""
    container, name = split_path(array)
    return container.with_name(".".join((container.name, *record_names(name))) + purpose)


def _windows(volume: Volume, levels: int | None) -> list[tuple[int, ...]]:
    """Return the window of each level against the level before it."""
    size, shape = volume.voxel_size, tuple(volume.spatial_shape)
    windows: list[tuple[int, ...]] = []
    while (len(windows) < levels) if levels is not None else max(shape) > CHUNK:
        window = factors(tuple(size), shape)
        if max(window) == 1:
            break
        windows.append(window)
        size = size * Coordinate(window)
        shape = tuple(-(-n // f) for n, f in zip(shape, window, strict=True))
    return windows


def _write_level(
    finer: Volume, number: int, window: Sequence[int], kind: Kind, volume: Volume, record: Path, workers: Any, run: str
) -> Volume:
    """Write one level from the one before it, or what a stopped run left of it to do."""
    path, done = levels_folder(volume.path) / str(number), record / str(number)
    if not done.exists():
        coarse = [-(-n // f) for n, f in zip(finer.spatial_shape, window, strict=True)]
        chunks = [chunk_length(n) for n in coarse]
        create_volume(
            path,
            (*_channels(volume), *coarse),
            volume.dtype,
            finer.voxel_size * Coordinate(window),
            volume.offset,
            (*_channels(volume), *chunks),
            is_image=False,
        )
        done.mkdir(parents=True)
    level = open_volume(path, "r+")  # "r" refuses what is unfinished
    grid = make_grid(level, _block_size(level, window), level.voxel_size * 0)
    run_blocks(f"level {number}", grid, _DownsampleBlock(finer.path, path, tuple(window), kind), workers, done, run=run)
    return level


def _channels(volume: Volume) -> tuple[int, ...]:
    return volume.shape[: len(volume.shape) - volume.voxel_size.dims]


def _block_size(level: Volume, window: Sequence[int]) -> Coordinate:
    """Return whole chunks: twice as long as a chunk along each axis, where that is not too much to read."""
    chunk = Coordinate(level.stored_block[-level.voxel_size.dims :])
    voxels = level.dtype.itemsize * (level.channels or 1)
    for n in [*(chunk * 2), *window]:
        voxels *= int(n)
    return chunk * level.voxel_size * (2 if voxels <= _MOST_BYTES else 1)


@dataclass(frozen=True)
class _DownsampleBlock:
    """Makes one block of a level. It holds paths, not open arrays, so that it can be sent to workers."""

    finer: Path
    out: Path
    window: tuple[int, ...]
    kind: Kind

    def is_whole(self, block: Block) -> bool:
        """See `run_blocks`."""
        return has_files(open_volume(self.out, "r+"), block.write)

    def __call__(self, block: Block) -> None:
        is_level = self.finer.parent == self.out.parent
        finer = open_volume(self.finer, "r+" if is_level else "r")
        voxels = finer.read(block.write.intersect(finer.roi))
        open_volume(self.out, "r+").write(block.write, downsample(voxels, self.window, self.kind))
