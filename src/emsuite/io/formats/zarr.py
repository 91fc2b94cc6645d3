"""Zarr, versions 2 and 3: folders of chunks, for reading and writing.

Arrays and groups are the folders that lie on the disk, with or without a document for each group. Consolidated metadata
are a copy made by some program at some time: they are never read, and renewed where the suite adds or renames an array.
zarr-python keeps documents, attributes and groups; voxels go through tensorstore where it can (`tensors.zarr_voxels`).
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numcodecs
import zarr
from zarr.codecs import BloscCodec, ZstdCodec
from zarr.storage import LocalStore

from emsuite.common.errors import BadInput
from emsuite.common.files import remove
from emsuite.common.provenance import checksum
from emsuite.io.compression import ZSTD, Compression
from emsuite.io.formats import ome_ngff
from emsuite.io.formats.base import Mode, NewArray, StoredArray
from emsuite.io.formats.tensors.zarr_voxels import TensorZarr
from emsuite.io.formats.zarr_chunks import PlainFiles, checked, read_plain

_METADATA = (".zarray", ".zattrs", ".zgroup", "zarr.json")
_LISTING = ".zmetadata"
_LARGEST = 2**62  # voxels along an axis
_log = logging.getLogger(__name__)


def open_array(container: str, name: str, mode: Mode) -> StoredArray:
    """See `Format.open_array`; a group that is an image of OME-NGFF is its finest array."""
    folder = Path(container) / name
    if not Path(container).is_dir():
        raise BadInput(f"{container}: no such volume; expected a zarr folder")
    if not _is_array(folder):
        folder = _finest(folder)
    if not _is_array(folder):
        raise BadInput(_no_array(container, name))
    try:
        array = checked(zarr.open_array(PlainFiles(folder, read_only=mode == "r"), mode=mode))
        _check_shape(array)
        attributes, dimensions = dict(array.attrs), getattr(array.metadata, "dimension_names", None)
    except (BadInput, PermissionError):
        raise
    except Exception as error:  # zarr raises many kinds for odd metadata
        raise BadInput(f"{folder}: its metadata cannot be read: {str(error) or type(error).__name__}") from None
    return StoredArray(
        TensorZarr(array, folder), attributes, tuple(dimensions or ()), tuple(_groups_above(Path(container), folder))
    )


def array_names(container: str) -> list[str]:
    """See `Format.array_names`."""
    if not Path(container).is_dir():
        raise BadInput(f"{container}: no such volume; expected a zarr folder")
    names = sorted(_arrays(Path(container)))
    if not names and not is_zarr(Path(container)):
        raise BadInput(f"{container}: cannot be read as a zarr group: it holds no arrays and no document of zarr")
    return names


def holds_array(container: str, name: str) -> bool:
    """See `Format.holds_array`."""
    return (Path(container) / name).exists()


def fingerprint(container: str, name: str) -> str:
    """See `Format.fingerprint`: the names and sizes of all files, and the content of the metadata."""
    return checksum(Path(container) / name, read_whole=_METADATA)


def create_array(container: str, name: str, new: NewArray) -> StoredArray:
    """See `WritableFormat.create_array`; a container that exists keeps its version of zarr."""
    wanted = None if _is_group(Path(container)) else new.zarr_format
    # a store, not a text, which zarr would take for an address if it has :: or :// in it
    group = zarr.open_group(LocalStore(container), mode="a", zarr_format=wanted, use_consolidated=False)
    names: Any = ome_ngff.axis_names(len(new.shape), len(new.attributes["voxel_size"]))
    version = group.metadata.zarr_format
    if new.shards and version == 2:
        raise BadInput(f"{container}: is zarr 2, which has no shards; expected chunks alone, or another container")
    array = group.create_array(
        name,
        shape=new.shape,
        dtype=new.dtype,
        chunks=new.chunks,
        shards=new.shards,
        compressors=_compressors(new.compression, group.metadata.zarr_format),
        fill_value=0,
        overwrite=True,
        dimension_names=names if version == 3 else None,
        chunk_key_encoding=None if version == 3 else {"name": "v2", "separator": "/"},  # as OME-NGFF wants it
    )
    array.attrs.update(new.attributes)
    if new.is_image:
        ome_ngff.describe(Path(container) / name, new)
    _renew_listings(Path(container) / name)
    return StoredArray(TensorZarr(checked(array), Path(container) / name), dict(new.attributes))


def _compressors(compression: Compression, zarr_format: int) -> Any:
    """Return the codecs of a compression for a version of zarr; that of all arrays is what zarr-python chooses."""
    name, level = compression
    if compression == ZSTD:
        return "auto"
    if name == "none":
        return None
    if zarr_format == 2:
        shuffle = numcodecs.Blosc.BITSHUFFLE
        return numcodecs.Zstd(level) if name == "zstd" else numcodecs.Blosc("lz4", level, shuffle)
    return ZstdCodec(level=level) if name == "zstd" else BloscCodec(cname="lz4", clevel=level, shuffle="bitshuffle")


def rename_array(container: str, old: str, new: str) -> None:
    """See `WritableFormat.rename_array`."""
    ome_ngff.rename(Path(container), old, new)
    remove(Path(container) / new)
    (Path(container) / old).rename(Path(container) / new)
    _renew_listings(Path(container) / new)


def write_attributes(container: str, attributes: Mapping[str, Any]) -> None:
    """Write attributes of the container itself."""
    zarr.open_group(LocalStore(container), mode="a", use_consolidated=False).attrs.update(attributes)
    _renew_listings(Path(container) / "any")


def set_levels(array: Path, *of_image: Any) -> None:
    """See `ome_ngff.set_levels`; listings of groups above are renewed."""
    ome_ngff.set_levels(array, *of_image)
    _renew_listings(array)


def is_zarr(folder: Path) -> bool:
    """Return whether a folder is an array or a group."""
    return _is_array(folder) or _is_group(folder)


def _is_array(folder: Path) -> bool:
    return (folder / ".zarray").exists() or _node(folder) == "array"


def _finest(folder: Path) -> Path:
    names = ome_ngff.level_names(group_attributes(folder)) if folder.is_dir() else []
    return folder / names[0] if names else folder


def _is_group(folder: Path) -> bool:
    return (folder / ".zgroup").exists() or _node(folder) == "group"


def _node(folder: Path) -> str | None:
    """Return the kind of node that a document of zarr 3 says; an array if the document is damaged."""
    try:
        document = json.loads(read_plain(folder / "zarr.json"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError, BadInput):
        return "array"
    return str(document.get("node_type")) if isinstance(document, dict) else "array"


def _arrays(container: Path) -> Iterator[str]:
    """Yield the names of all arrays; links are followed, but not in a circle."""
    for folder, below, _ in os.walk(container, followlinks=True):
        here = Path(folder)
        if _is_array(here):
            yield here.relative_to(container).as_posix().removeprefix(".")
            below.clear()  # the folders below an array hold chunks, possibly millions
        elif here.is_symlink() and any(parent.samefile(here) for parent in here.parents):
            below.clear()


def _no_array(container: str, name: str) -> str:
    names = sorted(_arrays(Path(container)))
    holds = ", ".join(names[:8]) or "no arrays"
    if not names and not is_zarr(Path(container)):
        return f"{container}: not a zarr group; expected one that holds arrays"
    if (Path(container) / name).is_dir():
        return f"{container}/{name}: is a group, expected an array; it holds {holds}"
    return f"{container}: has no array '{name}'; it holds {holds}"


def _check_shape(array: zarr.Array) -> None:
    if array.dtype.kind not in "biuf":
        raise ValueError(f"voxels of type {array.dtype}, expected numbers")
    if not all(0 <= n < _LARGEST for n in array.shape):
        raise ValueError(f"shape {array.shape}, expected lengths below 2^62")
    for kind, lengths in (("chunks", array.chunks), ("shards", array.shards or array.chunks)):
        if len(lengths) != array.ndim or not all(0 < n < _LARGEST for n in lengths):
            raise ValueError(f"{kind} of {lengths} voxels, expected {array.ndim} lengths above 0")


def _groups_above(container: Path, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of the array below each group up to the container, and the attributes of the group."""
    for group in folder.parents:
        if not group.is_relative_to(container):
            return
        yield folder.relative_to(group).as_posix(), group_attributes(group)


def group_attributes(group: Path) -> dict[str, Any]:
    """Return the attributes of a folder, none if it has no document; raise BadInput if they are damaged."""
    attributes: Any = {}
    for document in ("zarr.json", ".zattrs"):
        try:
            content = json.loads(read_plain(group / document))
            attributes = content.get("attributes", {}) if document == "zarr.json" else content
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (ValueError, AttributeError, RecursionError) as error:
            raise BadInput(f"{group / document}: cannot be read as JSON: {error}") from None
        break
    if not isinstance(attributes, dict):
        raise BadInput(f"{group}: its attributes are a {type(attributes).__name__}, expected a JSON object")
    return attributes


def _renew_listings(array: Path) -> None:
    """Write the consolidated metadata of groups above an array anew, because their readers see what is listed alone."""
    for group in array.parents:
        if not is_zarr(group):
            if not any(is_zarr(parent) for parent in group.parents):
                return
        elif _has_listing(group):
            try:
                zarr.consolidate_metadata(LocalStore(group))
            except Exception as error:  # as in open_array
                _log.warning("%s: its consolidated metadata cannot be renewed: %s", group, error)


def _has_listing(group: Path) -> bool:
    if (group / _LISTING).exists():
        return True
    try:
        return json.loads(read_plain(group / "zarr.json")).get("consolidated_metadata") is not None
    except (OSError, ValueError, AttributeError, RecursionError, BadInput):
        return False
