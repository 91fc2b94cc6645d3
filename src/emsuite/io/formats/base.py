"""The functions of a format, through which `emsuite.io.volume` reads and writes arrays.

A format is a module beside this one that has the functions of `Format` and, if arrays can be written in it, those of
`WritableFormat`, or of `FileFormat` if one file holds them. `registry.FORMATS` names it by its suffix or scheme;
nothing else in the suite knows formats.

A `container` is the path of a file or folder, or a URL, as text. A `name` leads to an array inside it, such as
`volumes/raw`; "" means the container itself. All functions raise BadInput for a container that is missing or damaged.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np

from emsuite.io.compression import ZSTD, Compression

Mode = Literal["r", "r+"]
"""Read, or read and write."""


ReadBox: TypeAlias = Callable[[tuple[slice, ...]], np.ndarray]
"""Returns the voxels of a box of an array: a slice with begin and end for each axis."""


class StoredArray(NamedTuple):
    """An array in a container, opened, and its attributes."""

    array: Any
    """Lazily read: has `shape`, `dtype` and `ndim`, is read and written by slices; axes (Z, Y, X) or (C, Z, Y, X).
    `chunks`, and `shards` where chunks are stored together, are voxels per axis."""
    attributes: dict[str, Any]
    """Holds `voxel_size` or `resolution` and, if it is not 0, `offset`, z y x, and the array's others."""
    dimension_names: tuple[str | None, ...] = ()
    """The names of the axes, if the format stores names."""
    groups: tuple[tuple[str, dict[str, Any]], ...] = ()
    """The groups above the array, the nearest first: the name of the array below each, and the group's attributes."""


@dataclass(frozen=True)
class NewArray:
    """The description of an array to create, filled with 0."""

    shape: tuple[int, ...]
    dtype: Any
    chunks: tuple[int, ...]
    """Voxels per axis that are compressed together."""
    shards: tuple[int, ...] | None
    """Voxels per axis that are stored in one file, multiples of `chunks`; None: one file per chunk."""
    attributes: dict[str, Any]
    zarr_format: Literal[2, 3]
    """For new zarr containers; other formats ignore it."""
    is_image: bool = True
    """Whether the metadata of the group above list the array as an image of its own; not those of coarser levels."""
    compression: Compression = ZSTD
    """Of the chunks, as far as the format knows it."""


class Format(Protocol):
    """The functions of every format.

    Formats whose arrays lie in several files also have `further_files(container, name)`, see `emsuite.io.volume`.
    """

    def open_array(self, container: str, name: str, mode: Mode) -> StoredArray:
        """Open an array; raise BadInput, with the names of arrays that exist, if there is none of that name."""

    def array_names(self, container: str) -> list[str]:
        """Return the names of all arrays in the container, sorted."""

    def holds_array(self, container: str, name: str) -> bool:
        """Return whether something bears that name in the container."""

    def fingerprint(self, container: str, name: str) -> str:
        """Return a text that changes with the array, or the container for "": see `common.provenance.checksum`.

        Volumes can be terabytes, so it need not read all voxels.
        """


@runtime_checkable
class WritableFormat(Format, Protocol):
    """The functions of a format in which arrays can be written, too."""

    def create_array(self, container: str, name: str, new: NewArray) -> StoredArray:
        """Create an array in a container, which is created if it is missing; replace an array of that name."""

    def rename_array(self, container: str, old: str, new: str) -> None:
        """Rename an array; replace an array that bears the new name."""


@runtime_checkable
class FileFormat(Format, Protocol):
    """The functions of a format that holds all voxels in one file, which one process writes as a whole.

    Blocks that several processes write, and files that a dead process leaves, would be damage to the whole file.
    """

    def holds_type(self, dtype: np.dtype) -> bool:
        """Return whether the format has a type of voxels."""

    def planned(self, container: str, name: str, new: NewArray) -> NewArray:
        """Return the array with the chunks that it will have; raise BadInput for what the format cannot hold."""

    def write_array(self, container: str, name: str, new: NewArray, read: ReadBox) -> None:
        """Write an array whose voxels `read` returns, box by box, into a file; replace an array of that name."""
