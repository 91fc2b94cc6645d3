"""Zarr, versions 2 and 3: folders of chunks, for reading and writing."""

import os
from pathlib import Path

import zarr

from emsuite.common.errors import BadInput
from emsuite.common.files import remove
from emsuite.common.provenance import checksum
from emsuite.io.formats.base import Mode, NewArray, StoredArray

_METADATA = (".zarray", ".zattrs", ".zgroup", "zarr.json")


def open_array(container: str, name: str, mode: Mode) -> StoredArray:
    """See `Format.open_array`."""
    if not Path(container).is_dir():
        raise BadInput(f"{container}: no such volume; expected a zarr folder")
    try:
        group = zarr.open_group(Path(container), mode=mode)  # a text is read as an address
        array = group[name] if name else group
    except KeyError:
        raise BadInput(f"{container}: has no array '{name}'; it holds {_first_arrays(container)}") from None
    except (FileNotFoundError, zarr.errors.GroupNotFoundError, zarr.errors.ContainsArrayError):
        raise BadInput(f"{container}: not a zarr group; expected one that holds arrays") from None
    except (ValueError, TypeError) as error:
        raise BadInput(f"{container}/{name}: its metadata cannot be read: {error}") from None
    if not isinstance(array, zarr.Array):
        raise BadInput(f"{container}/{name}: is a group, expected an array; it holds {_first_arrays(container)}")
    return StoredArray(array, dict(array.attrs))


def array_names(container: str) -> list[str]:
    """See `Format.array_names`."""
    if not Path(container).is_dir():
        raise BadInput(f"{container}: no such volume; expected a zarr folder")
    try:
        members = zarr.open_group(Path(container), mode="r").members(max_depth=None)
        return sorted(name for name, member in members if isinstance(member, zarr.Array))
    except (FileNotFoundError, ValueError, zarr.errors.BaseZarrError) as error:
        raise BadInput(f"{container}: cannot be read as a zarr group: {error}") from None


def holds_array(container: str, name: str) -> bool:
    """See `Format.holds_array`."""
    return (Path(container) / name).exists()


def fingerprint(container: str, name: str) -> str:
    """See `Format.fingerprint`: the names and sizes of all files, and the content of the metadata."""
    return checksum(Path(container) / name, read_whole=_METADATA)


def create_array(container: str, name: str, new: NewArray) -> StoredArray:
    """See `WritableFormat.create_array`; a container that exists keeps its version of zarr."""
    group = zarr.open_group(
        Path(container), mode="a", zarr_format=None if Path(container).exists() else new.zarr_format
    )
    array = group.create_array(
        name,
        shape=new.shape,
        dtype=new.dtype,
        chunks=new.chunks,
        shards=new.shards,
        compressors="auto",
        fill_value=0,
        overwrite=True,
    )
    array.attrs.update(new.attributes)
    return StoredArray(array, dict(new.attributes))


def rename_array(container: str, old: str, new: str) -> None:
    """See `WritableFormat.rename_array`."""
    remove(Path(container) / new)
    (Path(container) / old).rename(Path(container) / new)
    # Readers of consolidated metadata see only the arrays that are listed there.
    if zarr.open_group(Path(container), mode="r").metadata.consolidated_metadata is not None:
        zarr.consolidate_metadata(Path(container))


def _first_arrays(container: str) -> str:
    """Return the names of up to eight arrays for a message, even if some metadata are damaged."""
    names = []
    for folder, below, files in os.walk(container):
        if ".zarray" in files or ("zarr.json" in files and '"shape"' in (Path(folder) / "zarr.json").read_text()):
            names.append(str(Path(folder).relative_to(container)))
            below.clear()  # the folders below an array hold chunks, possibly millions
    return ", ".join(sorted(names)[:8]) or "no arrays"
