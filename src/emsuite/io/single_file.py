"""Volumes in formats that hold all voxels in one file, HDF5 and TIFF: written as a whole, by one process.

    .cube.h5.1a2b3c4d.part  ->  cube.h5        a file of that name is whole; a run that was stopped leaves none

Other arrays in an HDF5 file are kept: the file is copied first, and the copy takes its place, unless another program
has written to the file meanwhile. `write_container` writes several small arrays at once, into zarr as well.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from emsuite.common.errors import RunFailed
from emsuite.common.files import atomic_path, naming, remove, remove_leftovers
from emsuite.common.geometry import Number, json_numbers
from emsuite.common.outputs import lock_path
from emsuite.common.state.lock import owned
from emsuite.common.state.ownership import note_file
from emsuite.io.chunks import chunk_length
from emsuite.io.formats import hdf5, zarr
from emsuite.io.formats.base import FileFormat, NewArray, ReadBox
from emsuite.io.formats.registry import find_format
from emsuite.io.volume import Volume, create_volume, open_volume


def is_single_file(path: Path) -> bool:
    """Return whether the format of an array is one that holds all in one file; raise BadInput if it has no format."""
    return isinstance(find_format(path)[0], FileFormat)


def holds_type(path: Path, dtype: np.dtype) -> bool:
    """Return whether the format of an array, one of one file, has a type of voxels."""
    stored_as = find_format(path)[0]
    assert isinstance(stored_as, FileFormat), path
    return stored_as.holds_type(dtype)


def plan_array(
    path: Path, shape: tuple[int, ...], dtype: Any, like: Volume, offset: Any, chunks: tuple[int, ...], **more: Any
) -> NewArray:
    """Return the array to write; raise BadInput for what the format cannot hold.

    Args:
        path: The file, and the name of the array in it.
        shape: (Z, Y, X) or (C, Z, Y, X).
        dtype: The type of the voxels.
        like: Has the voxel size.
        offset: The position of the first voxel, nm.
        chunks: Voxels along each axis that are compressed together, where the format has chunks.
        **more: Further attributes.
    """
    stored_as, container, name = find_format(path)
    assert isinstance(stored_as, FileFormat), path
    size_nm = json_numbers(like.voxel_size)
    grid = {"voxel_size": size_nm, "resolution": size_nm, "offset": json_numbers(offset)}
    return stored_as.planned(container, name, NewArray(shape, dtype, chunks, None, grid | more, _ZARR))


@contextmanager
def writing(path: Path, new: NewArray, read: ReadBox) -> Iterator[Volume]:
    """Write an array, and yield it to be checked; the file gets its name if the block ends without an error.

    Args:
        path: The file, and the name of the array in it.
        new: From `plan_array`.
        read: Returns the voxels of a box.

    Raises:
        OutputInUse: Another run of the suite writes an array into the file.
        RunFailed: Another program has written to the file meanwhile.
    """
    stored_as, container, name = find_format(path)
    assert isinstance(stored_as, FileFormat), path
    file = Path(container).resolve()  # a link stays a link
    file.parent.mkdir(parents=True, exist_ok=True)
    with owned(lock_path(file), file):
        remove_leftovers(file)
        with atomic_path(file) as temporary:
            before = _state(file)
            if name and before:
                shutil.copy(file, temporary)
            stored_as.write_array(str(temporary), name, new, read)
            yield open_volume(temporary / name if name else temporary)
            if _state(file) != before:
                raise RunFailed(f"{file}: another program has written to it meanwhile; nothing was changed, try again")


def _state(file: Path) -> tuple[int, ...]:
    """Return what changes when a file is written; nothing without a file."""
    try:
        about = file.stat()
    except FileNotFoundError:
        return ()
    return about.st_ino, about.st_size, about.st_mtime_ns


def write_hdf5(
    file: Path, arrays: Mapping[str, tuple[np.ndarray, Mapping[str, Any]]], attributes: Mapping[str, Any]
) -> None:
    """Write a new HDF5 file with several arrays; replace a file of that name. The caller holds the lock of the file.

    Args:
        file: The file.
        arrays: The voxels and the attributes of each array, by its name.
        attributes: Those of the file itself.
    """
    remove_leftovers(file)
    with atomic_path(file) as temporary:
        for name, (voxels, about) in arrays.items():
            chunks = tuple(map(chunk_length, voxels.shape))
            new = NewArray(voxels.shape, voxels.dtype, chunks, None, dict(about), _ZARR)
            hdf5.write_array(str(temporary), name, new, voxels.__getitem__)
        hdf5.write_attributes(str(temporary), attributes)


@dataclass(frozen=True)
class PlacedVoxels:
    """An array to write, and where it lies."""

    voxels: np.ndarray
    """(Z, Y, X) or (C, Z, Y, X)."""
    offset: Sequence[Number | float]
    """Of its first voxel, nm."""


def write_container(
    path: Path, arrays: Mapping[str, PlacedVoxels], voxel_size: Sequence[float], **attributes: Any
) -> None:
    """Write a new zarr container or HDF5 file as a whole; replace one of that name. The caller holds its lock.

    Args:
        path: Its suffix says the format.
        arrays: By name.
        voxel_size: Of all arrays, nm.
        **attributes: Of the container.
    """
    if is_single_file(path):
        size_nm = json_numbers(voxel_size)
        grid = {"voxel_size": size_nm, "resolution": size_nm}
        about = {name: grid | {"offset": json_numbers(placed.offset)} for name, placed in arrays.items()}
        write_hdf5(path, {name: (placed.voxels, about[name]) for name, placed in arrays.items()}, attributes)
        return
    unfinished = path.with_name(f".{path.stem}.part{path.suffix}")
    remove(unfinished)
    with naming(path):
        for name, placed in arrays.items():
            array = placed.voxels
            create_volume(unfinished / name, array.shape, array.dtype, voxel_size, placed.offset).array[...] = array
        zarr.write_attributes(str(unfinished), attributes)
    remove(path)
    unfinished.rename(path)


@contextmanager
def writing_arrays(file: Path, arrays: Mapping[str, tuple[NewArray, ReadBox]]) -> Iterator[Path]:
    """Write a file that holds these arrays alone, for a caller whose `output` it is.

    Args:
        file: The file; it gets its name if the block ends without an error.
        arrays: By name, what `plan_array` returns and a function that returns the voxels of a box.

    Yields:
        The file under its other name, to be checked.
    """
    stored_as = find_format(file)[0]
    assert isinstance(stored_as, FileFormat), file
    remove_leftovers(file)
    with atomic_path(file) as temporary:
        for name, (new, read) in arrays.items():
            stored_as.write_array(str(temporary), name, new, read)
        yield temporary
        note_file(file, temporary)


_ZARR: Literal[3] = 3  # of no meaning here
