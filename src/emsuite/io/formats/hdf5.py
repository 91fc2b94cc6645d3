"""HDF5, as CREMI's volumes come: read only."""

from pathlib import Path

import h5py

from emsuite.common.errors import BadInput
from emsuite.common.provenance import checksum
from emsuite.io.formats.base import Mode, StoredArray


def open_array(container: str, name: str, mode: Mode) -> StoredArray:
    """See `Format.open_array`; the file stays open as long as the array is used."""
    try:
        file = h5py.File(container, mode)
    except FileNotFoundError:
        raise BadInput(f"{container}: no such volume; expected an HDF5 file") from None
    except OSError as error:
        raise BadInput(f"{container}: cannot be read as HDF5: {error}") from None
    if not isinstance(file.get(name), h5py.Dataset):
        raise BadInput(f"{container}: has no array '{name}'; it holds {', '.join(_names(file)[:8]) or 'no arrays'}")
    return StoredArray(file[name], dict(file[name].attrs))


def array_names(container: str) -> list[str]:
    """See `Format.array_names`."""
    try:
        with h5py.File(container, "r") as file:
            return sorted(_names(file))
    except OSError as error:
        raise BadInput(f"{container}: cannot be read as HDF5: {error}") from None


def holds_array(container: str, name: str) -> bool:
    """See `Format.holds_array`."""
    with h5py.File(container) as file:
        return name in file


def fingerprint(container: str, name: str) -> str:
    """See `Format.fingerprint`: the checksum of the whole file, for each of its arrays."""
    return checksum(Path(container) / name)


def _names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names
