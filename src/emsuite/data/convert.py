"""Copies of volumes in another format, type or layout: block by block, each block read back and compared.

    FROM    any array that can be opened
    TO      an array in a format that can be written; it bears another name until it is complete

Formats of one file, HDF5 and TIFF, are written by one process; a stopped run begins again.

A source on a server is read a second time at the end, and each block compared with the copy: servers do not tell
whether voxels have changed since a block was read, by this run or by one that was stopped.

The record, with the digest of the voxels, lies beside the container of TO: `x.zarr.volumes.raw.manifest.json` for
`x.zarr/volumes/raw`. A folder of that name, without the ending, keeps the state of a run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from emsuite.blockwise.grid import BlockGrid
from emsuite.blockwise.run import BlockWorkers, run_blocks
from emsuite.common.errors import BadInput
from emsuite.common.files import remove, remove_parts_below
from emsuite.common.geometry import Coordinate, Roi
from emsuite.common.outputs import check_whole, is_copy, manifest_path, output, read_manifest, unfinished_path
from emsuite.common.state.ownership import is_newer, mark, marked_parts, unmark, wrote
from emsuite.common.state.written import arrays_in
from emsuite.data.copied_blocks import (
    CopyBlock,
    changed_path,
    compare,
    compare_again,
    digest_of,
    digest_path,
    voxels_digest,
)
from emsuite.data.pyramid import check_levels, record_path, remove_levels
from emsuite.io.chunks import chunk_length
from emsuite.io.fingerprint import is_on_server, origin_of
from emsuite.io.levels import check_no_levels_name
from emsuite.io.regions import format_roi, parse_roi
from emsuite.io.single_file import is_single_file, plan_array, writing
from emsuite.io.values import fitted
from emsuite.io.volume import (
    Volume,
    create_volume,
    fingerprint,
    further_attributes,
    holds_array,
    is_writable,
    open_volume,
    rename_array,
    split_path,
)

_BLOCK_BYTES = 2**26
"""Of one block, unless a chunk or a shard is larger."""


@dataclass(frozen=True)
class Layout:
    """How voxels are stored; None keeps what the source has, or the suite's default."""

    dtype: str | None = None
    """The type of the voxels; each must have the same value in it."""
    chunks: tuple[int, ...] | None = None
    """Voxels along each axis of space that are compressed together."""
    shards: tuple[int, ...] | None = None
    """Voxels along each axis of space that are stored in one file, multiples of `chunks`; zarr 3 alone has shards."""
    zarr_format: Literal[2, 3] = 3
    """For a new container of zarr."""


def convert(
    source: Path, to: Path, *, roi: str | None = None, layout: Layout | None = None, workers: BlockWorkers = 1
) -> str:
    """Copy an array, with its voxel size, its offset and its other attributes.

    The blocks that a stopped run with the same settings has copied are kept. An array at `to` is replaced if it is an
    earlier copy; others are refused.

    Args:
        source: The array to read.
        to: The array to write.
        roi: The region to copy, as `parse_roi` reads it; None: all.
        layout: How the voxels are stored.
        workers: Processes on this machine, or jobs of Slurm; one process writes formats of one file.

    Returns:
        The digest: SHA-256 of the SHA-256 (hexadecimal, joined) of each block's voxels, little-endian in C order; the
        manifest says the shape of blocks.

    Raises:
        BadInput: The source is missing, `to` cannot be written or is not a copy, or a voxel does not fit the type.
        RunFailed: Voxels that were read back differ.
    """
    to, layout = Path(to), layout or Layout()
    check_whole(Path(source))
    volume = open_volume(source)
    region = volume.roi if roi is None else parse_roi(roi, volume)
    new = _NewVolume.of(volume, region, layout)
    if is_single_file(to):
        return _convert_to_file(volume, region, to, new)
    record, container = record_path(to), split_path(to)[0]
    _check_target(volume, to, record)
    check_levels(to)
    settings = {
        "from": origin_of(Path(source)),
        "roi": format_roi(region),
        **new.settings(),
    }
    with output(record, settings, inputs={"from": Path(source)}, fingerprint=fingerprint) as out:
        unfinished = _unfinished(to)
        digests = [digest_path(record, index) for index in range(len(new.grid))]
        if not (out.resumed and record.exists() and _is_begun(unfinished, digests)) or changed_path(record).exists():
            out.clear()
            new.create(unfinished)
            mark(unfinished)  # behind all metadata: an array without the mark is none to go on in
        if holds_array(unfinished):
            remove_parts_below(unfinished)
            process = CopyBlock(Path(source), unfinished, record)
            run_blocks("convert", new.grid, process, workers, record, run=out.run)
            if is_on_server(Path(source)):
                compare_again(process, new.grid, workers, settings["from"])
            rename_array(container, split_path(unfinished)[1], split_path(to)[1])
        remove_levels(to)  # of an earlier copy
        digest = digest_of(path.read_text() for path in digests)
        out.notes |= {"digest": digest, "block": list(new.block)}
        out.notes["wrote"] = wrote(to)
        remove(record)
    unmark(to)
    return str(out.notes["digest"])


def _unfinished(to: Path) -> Path:
    return to.with_name(to.name + "_unfinished")


def _is_begun(unfinished: Path, digests: Sequence[Path]) -> bool:
    """Return whether a stopped run has made the array, or has even given it its name."""
    if not split_path(unfinished)[0].exists():
        return False
    if holds_array(unfinished):
        return marked_parts(unfinished) is not None
    return all(path.exists() for path in digests)


def _convert_to_file(volume: Volume, region: Roi, to: Path, new: "_NewVolume") -> str:
    """Do what `convert` does, for a format that holds all voxels in one file."""
    if new.shards:
        raise BadInput(f"{to}: shards of {new.shards} voxels: expected none, zarr 3 alone has shards")
    planned = plan_array(to, new.shape, new.dtype, volume, region.offset, new.chunks, **new.attributes)
    record = record_path(to)
    _check_copy(volume, to, record)
    block = _block(planned.chunks[-region.dims :], region.shape / volume.voxel_size, new.voxel_bytes)
    first = [int(n) for n in (region.offset - volume.offset) / volume.voxel_size]

    def read(box: tuple[slice, ...]) -> np.ndarray:
        begins = [0] * (len(box) - len(first)) + first
        moved = tuple(slice(part.start + b, part.stop + b) for part, b in zip(box, begins, strict=True))
        return fitted(volume.path, volume[moved], new.dtype)

    settings = {"from": origin_of(volume.path), "roi": format_roi(region), **new.settings(), "chunks": planned.chunks}
    del settings["shards"], settings["zarr_format"]
    with output(record, settings, inputs={"from": volume.path}, fingerprint=fingerprint) as out:
        with writing(to, planned, read) as copy:
            digests = compare(volume, copy, region, new.dtype, block)
        out.notes |= {"digest": digest_of(digests), "block": list(block)}
        if record != split_path(to)[0]:
            out.notes["wrote"] = {}  # the digest tells
    return str(out.notes["digest"])


def _check_target(volume: Volume, to: Path, record: Path) -> None:
    container, name = split_path(to)
    if not is_writable(container) or not name:
        raise BadInput(f"{to}: expected an array in a format that can be written, as VOLUME.zarr/volumes/raw")
    check_no_levels_name(to)
    _check_copy(volume, to, record)
    if not container.exists():
        return
    for group in (part for part in to.parents if part != container and part.is_relative_to(container)):
        if group in arrays_in(group):
            raise BadInput(f"{to}: lies below the array {group}, expected a name in a group")
    begun = _unfinished(to)
    if holds_array(begun) and not (unfinished_path(record).exists() and is_copy(begun, record)):
        raise BadInput(f"{begun}: exists but this suite did not write it; remove it or choose another name for {to}")


def _check_copy(volume: Volume, to: Path, record: Path) -> None:
    """Raise BadInput if the array to write is the source, or no earlier copy."""
    container = split_path(to)[0]
    if container.exists() and holds_array(to):
        if to.resolve() == volume.path.resolve() or volume.path.resolve().is_relative_to(to.resolve()):
            raise BadInput(f"{to}: is the array to copy, expected another")
        if not is_copy(to, record):
            raise BadInput(f"{to}: exists but is no copy that this suite made; remove it or choose another name")
        if _is_edited(to, record):
            raise BadInput(f"{to}: has other voxels than this suite wrote; remove it or choose another name")


def _is_edited(copy: Path, record: Path) -> bool:
    """Return whether a finished copy has other voxels by now. They are read only if its files are newer."""
    wrote_it, digest, block = (read_manifest(record).get(key) for key in ("wrote", "digest", "block"))
    files = copy if copy.exists() else split_path(copy)[0]
    if not isinstance(block, list) or not is_newer(files, wrote_it, manifest_path(record)):
        return False
    return voxels_digest(open_volume(copy), block) != digest


@dataclass(frozen=True)
class _NewVolume:
    """The array to write, and the blocks in which it is written: no two write into the same file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    voxel_size: Coordinate
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    zarr_format: Literal[2, 3]
    attributes: dict[str, Any]
    grid: BlockGrid
    block: tuple[int, ...]
    voxel_bytes: int
    """Of all channels."""

    @classmethod
    def of(cls, volume: Volume, roi: Roi, layout: Layout) -> "_NewVolume":
        spatial = tuple(int(n) for n in roi.shape / volume.voxel_size)
        channels = volume.shape[: len(volume.shape) - len(spatial)]
        dtype = volume.dtype if layout.dtype is None else np.dtype(layout.dtype)
        chunks = _lengths("chunks", layout.chunks or tuple(map(chunk_length, spatial)), spatial)
        shards = None if layout.shards is None else _lengths("shards", layout.shards, spatial)
        if shards and (layout.zarr_format == 2 or any(s % c for s, c in zip(shards, chunks, strict=True))):
            raise BadInput(f"shards of {shards} voxels: expected multiples of the chunks {chunks}, in zarr 3")
        voxel_bytes = dtype.itemsize * math.prod(channels)
        block = _block(shards or chunks, spatial, voxel_bytes)
        size_nm = Coordinate(min(b, n) for b, n in zip(block, spatial, strict=True)) * volume.voxel_size
        grid = BlockGrid(roi, size_nm, volume.voxel_size * 0)
        stored = (*channels, *chunks), (*channels, *shards) if shards else None
        kept = further_attributes(volume, roi)
        shape = (*channels, *spatial)
        return cls(shape, dtype, volume.voxel_size, *stored, layout.zarr_format, kept, grid, block, voxel_bytes)

    def settings(self) -> dict[str, Any]:
        """Return what decides the bytes."""
        return {
            "dtype": self.dtype.name,
            "chunks": self.chunks,
            "shards": self.shards,
            "zarr_format": self.zarr_format,
            "block": self.block,
        }

    def create(self, path: Path) -> None:
        """Create the array, filled with 0."""
        create_volume(
            path,
            self.shape,
            self.dtype,
            self.voxel_size,
            self.grid.total.offset,
            self.chunks,
            self.zarr_format,
            self.shards,
            **self.attributes,
        )


def _lengths(name: str, lengths: Sequence[int], spatial: Sequence[int]) -> tuple[int, ...]:
    if len(lengths) != len(spatial):
        raise BadInput(f"{name} of {tuple(lengths)} voxels: expected {len(spatial)} lengths")
    return tuple(lengths)


def _block(file: Sequence[int], spatial: Sequence[int], voxel_bytes: int) -> tuple[int, ...]:
    """Return whole files, doubled along the shortest axis as long as they stay below `_BLOCK_BYTES`."""
    block = list(file)
    while True:
        growing = [axis for axis, n in enumerate(spatial) if block[axis] < n]
        if not growing or 2 * math.prod(block) * voxel_bytes > _BLOCK_BYTES:
            return tuple(block)
        block[min(growing, key=lambda axis: block[axis])] *= 2
