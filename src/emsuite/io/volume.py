"""Volumes: arrays with a position in the world, their voxel size and offset in nanometres, in any format.

fib25.zarr/volumes/raw        the path of the container and the name of the array in it
offset (nm)
  +--------------------+
  |  . . . . . . . .   |      the first voxel of the array starts at `offset`,
  |  . . . . . . . .   |      each voxel is `voxel_size` nm wide; the last axes of the array are z, y, x,
  +--------------------+      channels, if any, come first
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate, Number, Roi, json_numbers, on_grid
from emsuite.common.outputs import check_finished
from emsuite.common.provenance import checksum
from emsuite.io.chunks import chunk_length
from emsuite.io.compression import ZSTD, Compression
from emsuite.io.formats.axes import plain
from emsuite.io.formats.axis_order import in_order
from emsuite.io.formats.base import NewArray, StoredArray, WritableFormat
from emsuite.io.formats.registry import as_url, find_format
from emsuite.io.formats.registry import further_files as further_files
from emsuite.io.formats.stated_grid import Stated, grid_of, stated_for, stating
from emsuite.io.formats.stated_grid import StatedOtherwise as StatedOtherwise
from emsuite.io.formats.voxel_grid import nanometres
from emsuite.io.formats.voxel_grid import voxel_size as check_voxel_size

RAW, LABELS, MASK = "volumes/raw", "volumes/labels/neuron_ids", "volumes/labels/labels_mask"
"""Names of arrays in the containers of a data set."""

_OF_THE_GRID = {"voxel_size", "resolution", "offset", "units", "unit", "axis_names", "axes", "_ARRAY_DIMENSIONS"}
_OF_THE_GRID |= {"axistags", "transform", "element_size_um", "pixelResolution", "DIMENSION_LIST", "DIMENSION_LABELS"}
_OF_ALL_SECTIONS = {"sections", "missing_numbers"}  # what a folder of images tells of its files


@dataclass(frozen=True)
class Volume:
    """An array (`(Z, Y, X)` or `(C, Z, Y, X)`, lazily read) with its voxel size and offset in nm."""

    path: Path
    array: Any
    voxel_size: Coordinate
    offset: Coordinate
    attributes: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """All attributes of the array as they were when it was opened."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels per axis; channels, if any, come first."""
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype:
        """The type of the voxels that `read` returns: the stored one, in this machine's byte order."""
        return np.dtype(self.array.dtype).newbyteorder("=")

    @property
    def spatial_shape(self) -> Coordinate:
        """Voxels along z, y, x (or y, x)."""
        return Coordinate(self.shape[-self.voxel_size.dims :])

    @property
    def channels(self) -> int | None:
        """The number of channels; None for an array without a channel axis."""
        return self.shape[0] if len(self.shape) > self.voxel_size.dims else None

    @property
    def stored_block(self) -> tuple[int, ...]:
        """Voxels per axis that are stored in one file: a shard, else a chunk, else the whole array."""
        return tuple(getattr(self.array, "shards", None) or getattr(self.array, "chunks", None) or self.shape)

    @property
    def roi(self) -> Roi:
        """The region that the array covers, in nm."""
        return Roi(self.offset, self.spatial_shape * self.voxel_size)

    def read(self, roi: Roi | None = None) -> np.ndarray:
        """Read voxels.

        Args:
            roi: The region in nm; None: the whole array.

        Returns:
            An array (Z, Y, X) or (C, Z, Y, X), all channels, of `dtype`.

        Raises:
            BadInput: As `check`, and for damaged chunks.
        """
        return self[self._index(self.roi if roi is None else roi)]

    def __getitem__(self, index: Any) -> np.ndarray:
        """Return voxels of `dtype` by slices of the array; raise BadInput for damaged chunks."""
        try:
            return np.asarray(self.array[index]).astype(self.dtype, copy=False)
        except PermissionError:
            raise
        except (RuntimeError, ValueError, OSError) as error:  # what codecs and HDF5 raise
            raise BadInput(f"{self.path}: cannot be read at {index}, it is damaged: {error}") from None

    def write(self, roi: Roi, voxels: np.ndarray) -> None:
        """Write `voxels`, all channels, at `roi` (nm); raise BadInput as `check`."""
        self.array[self._index(roi)] = voxels

    def check(self, roi: Roi) -> None:
        """Raise BadInput for a `roi` (nm) that is not inside the volume, or whose faces cut voxels."""
        roi = Roi(roi.offset, roi.shape)  # that of funlib.geometry will do
        if not self.roi.contains(roi):
            raise BadInput(f"{self.path}: covers {self.roi} nm, but {roi} was asked for")
        if any((roi.offset - self.offset) % self.voxel_size) or any(roi.shape % self.voxel_size):
            raise BadInput(f"{self.path}: {roi} nm does not lie on the voxels, which are {self.voxel_size} nm wide")

    def _index(self, roi: Roi) -> tuple[Any, ...]:
        self.check(roi)
        roi = Roi(roi.offset, roi.shape)
        return (..., *Roi((roi.offset - self.offset) / self.voxel_size, roi.shape / self.voxel_size).to_slices())


def open_volume(
    path: str | Path,
    mode: Literal["r", "r+"] = "r",
    voxel_size: Sequence[float] | None = None,
    offset: Sequence[float] | None = None,
) -> Volume:
    """Open an array.

    The voxel size comes from the attribute `resolution` or `voxel_size` (z y x, nm unless `units` says another length),
    the offset from `offset` (default 0). See `voxel_grid` for other attributes.

    Args:
        path: The container and the name of the array in it, such as `fib25.zarr/volumes/raw` or
            `cremi.hdf/volumes/raw`.
        mode: "r" reads, "r+" also writes. Reading is refused while a run has not finished the array.
        voxel_size: For an array that says none, nm, z y x; None: as `stated_grid` said for this path.
        offset: The same for the position of the first voxel.

    Returns:
        The volume; no voxel is read yet.

    Raises:
        BadInput: The container or the array is missing or unfinished, an attribute is missing or odd, or says another
            voxel size or offset than the arguments (then a `StatedOtherwise`).
    """
    stored, path = open_stored(path, mode), Path(path)
    given, known = _stated(voxel_size, offset), stated_for(path)
    stated = Stated(given.voxel_size or known.voxel_size, given.offset or known.offset)
    size_nm, offset_nm = grid_of(path, stored, stated)
    array = stored.array
    if not 0 <= array.ndim - size_nm.dims <= 1:
        raise BadInput(f"{path}: {array.ndim} axes {array.shape}, expected {size_nm.dims}, or one more for channels")
    return Volume(path, array, size_nm, offset_nm, stored.attributes)


def open_stored(path: str | Path, mode: Literal["r", "r+"] = "r") -> StoredArray:
    """Open an array that need not have a voxel size, as it is stored; raise BadInput if it is missing or unfinished."""
    stored_as, container, name = find_format(path)
    if mode == "r":
        check_finished(Path(path))
    return in_order(Path(path), stored_as.open_array(container, name, mode))


def stated_grid(
    paths: Iterable[str | Path], voxel_size: Sequence[float] | None, offset: Sequence[float] | None
) -> tuple[str, str]:
    """Return the environment variable, name and text, by which `open_volume` knows grids (nm) that the user states.

    It holds for arrays, or all arrays in containers, that say none, in the process and in those that inherit it.
    """
    return stating(paths, _stated(voxel_size, offset))


def _stated(voxel_size: Sequence[float] | None, offset: Sequence[float] | None) -> Stated:
    return Stated(*(None if lengths is None else list(lengths) for lengths in (voxel_size, offset)))


def create_volume(
    path: str | Path,
    shape: Sequence[int],
    dtype: Any,
    voxel_size: Sequence[Number | float],
    offset: Sequence[Number | float],
    chunks: Sequence[int] | None = None,
    zarr_format: Literal[2, 3] = 3,
    shards: Sequence[int] | None = None,
    is_image: bool = True,
    compression: Compression = ZSTD,
    **attributes: Any,
) -> Volume:
    """Create an array filled with 0; replace an array of that name.

    Args:
        path: The container, which is created if it is missing, and the name of the array in it.
        shape: Voxels per axis; channels, if any, come first.
        dtype: The type of the voxels.
        voxel_size: In nm, z y x. It is written as `voxel_size` and as `resolution`, because other tools know only one.
        offset: The position of the first voxel in nm, z y x.
        chunks: Voxels per axis that are compressed together; None: 64, channels together.
        zarr_format: The version of zarr for a new container; an older container keeps its own.
        shards: Voxels per axis that are stored in one file, multiples of `chunks`; None: one file per chunk.
            Only zarr 3 has shards.
        is_image: Whether the metadata of its group list the array; not for coarser levels of another.
        compression: Of the chunks.
        **attributes: Further attributes of the array.

    Raises:
        BadInput: The format is read only, or the voxel size is not above 0.
    """
    stored_as, container, name = find_format(path)
    path = Path(path)
    if not isinstance(stored_as, WritableFormat):
        raise BadInput(f"{path}: arrays are written as zarr, expected a path as VOLUME.zarr/volumes/raw")
    spatial = len(tuple(voxel_size))
    size = Coordinate(check_voxel_size(path, json_numbers(voxel_size)))
    position = on_grid(Coordinate(nanometres(path, "offset", json_numbers(offset))), size)
    size_nm, offset_nm = json_numbers(size), json_numbers(position)
    if chunks is None:
        chunks = [*(shape[: len(shape) - spatial]), *map(chunk_length, shape[-spatial:])]
    all_attributes = {"voxel_size": size_nm, "resolution": size_nm, "offset": offset_nm} | attributes
    new = NewArray(
        tuple(shape), dtype, tuple(chunks), tuple(shards) if shards else None, all_attributes, zarr_format, is_image,
        compression,
    )  # fmt: skip
    stored = stored_as.create_array(container, name, new)
    return Volume(path, stored.array, size, position, stored.attributes)


def further_attributes(volume: Volume, roi: Roi | None = None) -> dict[str, Any]:
    """Return the attributes of a region that JSON can hold, without those of its grid and its axes; None: of all."""
    is_cropped = roi is not None and roi.shape[0] != volume.roi.shape[0]
    kept, left_out = {}, {*_OF_THE_GRID, *(_OF_ALL_SECTIONS if is_cropped else ())}
    for key, value in volume.attributes.items():
        if key not in left_out:
            with suppress(TypeError, ValueError):
                kept[key] = json.loads(json.dumps(plain(value)))
    return kept


def split_path(path: Path) -> tuple[Path, str]:
    """Return the container and the name of the array inside; raise BadInput if no part of the path is a container.

    `a/fib25.zarr/volumes/raw` becomes `a/fib25.zarr` and `volumes/raw`; the name of the container itself is "".
    """
    _, container, name = find_format(path)
    return Path(container), name


def array_names(container: Path) -> list[str]:
    """Return the names of all arrays in a container, sorted; raise BadInput if it is missing or no container."""
    stored_as, outer, name = find_format(container)
    if name:
        raise BadInput(f"{container}: an array or group, expected the container itself, {outer}")
    return stored_as.array_names(outer)


def holds_array(path: Path) -> bool:
    """Return whether the container has something of that name; the container itself must exist."""
    stored_as, container, name = find_format(path)
    return stored_as.holds_array(container, name)


def name_of_format(path: Path) -> str | None:
    """Return the name of the format of an array or container, as `zarr` or `image folder`; None if it has none."""
    try:
        stored_as, _, _ = find_format(path)
    except BadInput:
        return None
    module = getattr(stored_as, "__name__", type(stored_as).__name__)
    return module.rpartition(".")[2].replace("_", " ")


def is_url(path: str | Path) -> bool:
    """Return whether the path of an array is a URL, as `dvid://...`, which has no links to follow."""
    return as_url(str(path)) is not None


def place_of(path: Path) -> str:
    """Return the path of an array with links followed, as settings record it; a URL as it is."""
    return str(path) if is_url(path) else str(path.resolve())


def is_writable(container: Path) -> bool:
    """Return whether `container` is one that arrays can be written into."""
    try:
        stored_as, _, name = find_format(container)
        return isinstance(stored_as, WritableFormat) and not name
    except BadInput:
        return False


def rename_array(container: Path, old: str, new: str) -> None:
    """Rename an array in a container that `is_writable`; replace an array that bears the new name."""
    stored_as, outer, _ = find_format(container)
    assert isinstance(stored_as, WritableFormat), container
    stored_as.rename_array(outer, old, new)


def fingerprint(path: Path) -> str:
    """Return a checksum of an array, a container or any other file or folder, as `common.provenance.checksum` does.

    The metadata of volumes count with their content.
    """
    try:
        stored_as, container, name = find_format(path)
    except BadInput:
        return checksum(path)
    return stored_as.fingerprint(container, name)
