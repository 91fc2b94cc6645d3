"""Arrays with a place in the world: voxel size and offset in nanometres, from zarr v2/v3 and HDF5.

fib25.zarr/volumes/raw        a path names the container and the array in it
offset (nm)
  +--------------------+
  |  . . . . . . . .   |      the array's first voxel starts at `offset`,
  |  . . . . . . . .   |      each voxel is `voxel_size` nm wide, axes z, y, x (the last axes of the
  +--------------------+      array; channels, if any, come first)
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import zarr
from funlib.geometry import Coordinate, Roi

from emsuite.common.errors import BadInput
from emsuite.common.outputs import check_finished

_HDF5 = {".h5", ".hdf", ".hdf5"}
_CONTAINERS = {".zarr", *_HDF5}
_CHUNK = 64


@dataclass(frozen=True)
class Volume:
    """An array (`(Z, Y, X)` or `(C, Z, Y, X)`, lazily read) with its voxel size and offset in nm."""

    path: Path
    array: Any
    voxel_size: Coordinate
    offset: Coordinate

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels per axis, channels first where there are any."""
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype:
        """The array's type as stored."""
        return np.dtype(self.array.dtype)

    @property
    def spatial_shape(self) -> Coordinate:
        """Voxels along z, y, x (or y, x)."""
        return Coordinate(self.shape[-self.voxel_size.dims :])

    @property
    def channels(self) -> int | None:
        """Number of channels, None for an array without a channel axis."""
        return self.shape[0] if len(self.shape) > self.voxel_size.dims else None

    @property
    def roi(self) -> Roi:
        """What the array covers, in nm."""
        return Roi(self.offset, self.spatial_shape * self.voxel_size)

    def read(self, roi: Roi | None = None) -> np.ndarray:
        """The voxels in `roi` (nm; default: all), all channels; raises BadInput as `check`, and for damaged chunks."""
        wanted = self.roi if roi is None else roi
        index = self._index(wanted)
        try:
            return np.asarray(self.array[index])
        except (RuntimeError, ValueError) as error:  # what codecs raise
            raise BadInput(f"{self.path}: cannot be read at {wanted} nm, it is damaged: {error}") from None

    def write(self, roi: Roi, voxels: np.ndarray) -> None:
        """Write `voxels` at `roi` (nm); raises BadInput as `check`."""
        self.array[self._index(roi)] = voxels

    def check(self, roi: Roi) -> None:
        """Raises BadInput for a `roi` (nm) that does not lie in the volume, or not on its voxels."""
        if not self.roi.contains(roi):
            raise BadInput(f"{self.path}: covers {self.roi} nm, but {roi} was asked for")
        if any((roi.offset - self.offset) % self.voxel_size) or any(roi.shape % self.voxel_size):
            raise BadInput(
                f"{self.path}: {roi} nm does not lie on the voxels, which are {tuple(self.voxel_size)} nm wide"
            )

    def _index(self, roi: Roi) -> tuple[Any, ...]:
        self.check(roi)
        begin = (roi.offset - self.offset) / self.voxel_size
        end = begin + roi.shape / self.voxel_size
        return (..., *(slice(int(b), int(e)) for b, e in zip(begin, end, strict=True)))


def open_volume(path: str | Path, mode: Literal["r", "r+"] = "r") -> Volume:
    """Open an array by container and name, as `fib25.zarr/volumes/raw` or `cremi.hdf/volumes/raw`.

    The voxel size comes from the attribute `resolution` or `voxel_size` (nm, z y x), the place from `offset` (nm,
    default 0). Reading refuses what a run left unfinished. Raises BadInput with the missing or odd part named.
    """
    path = Path(path)
    container, name = split_path(path)
    if mode == "r":
        check_finished(path)
    array = _open_hdf5(container, name, mode) if container.suffix in _HDF5 else _open_zarr(container, name, mode)
    attributes = dict(array.attrs)
    voxel_size = _voxel_size(path, attributes)
    offset = Coordinate(_whole_numbers(path, "offset", attributes.get("offset", [0] * voxel_size.dims)))
    if offset.dims != voxel_size.dims:
        raise BadInput(
            f"{path}: offset {tuple(offset)} and voxel size {tuple(voxel_size)} differ in their number of axes"
        )
    if not 0 <= array.ndim - voxel_size.dims <= 1:
        raise BadInput(f"{path}: {array.ndim} axes {array.shape}, expected {voxel_size.dims}, or one more for channels")
    return Volume(path, array, voxel_size, offset)


def create_volume(
    path: str | Path,
    shape: Sequence[int],
    dtype: Any,
    voxel_size: Sequence[int],
    offset: Sequence[int],
    chunks: Sequence[int] | None = None,
    zarr_format: Literal[2, 3] = 3,
    shards: Sequence[int] | None = None,
    **attributes: Any,
) -> Volume:
    """Create a zarr array (replacing one of that name), zero-filled, in chunks of 64 voxels per axis by default.

    `shards`, multiples of `chunks`, are how many voxels go into one file (default: those of a chunk; zarr format 3).
    `voxel_size` and `offset` are nm; both `voxel_size` and `resolution` are written, so that other tools find one.
    """
    path = Path(path)
    container, name = split_path(path)
    if container.suffix in _HDF5:
        raise BadInput(f"{path}: arrays are written as zarr, expected a path as VOLUME.zarr/volumes/raw")
    spatial = len(tuple(voxel_size))
    size, place = _nanometres(path, voxel_size), _whole_numbers(path, "offset", offset)
    if chunks is None:
        chunks = [*(shape[: len(shape) - spatial]), *(min(_CHUNK, max(1, n)) for n in shape[-spatial:])]
    group = zarr.open_group(container, mode="a", zarr_format=zarr_format if not container.exists() else None)
    array = group.create_array(
        name,
        shape=tuple(shape),
        dtype=dtype,
        chunks=tuple(chunks),
        shards=tuple(shards) if shards else None,
        compressors="auto",
        fill_value=0,
        overwrite=True,
    )
    array.attrs.update({"voxel_size": size, "resolution": size, "offset": place} | attributes)
    return Volume(path, array, Coordinate(size), Coordinate(place))


def split_path(path: Path) -> tuple[Path, str]:
    """A path as (container, name of the array inside); raises BadInput if no part ends in .zarr, .h5, .hdf or .hdf5."""
    for container in (path, *path.parents):
        if container.suffix in _CONTAINERS:
            name = path.relative_to(container).as_posix()
            return container, "" if name == "." else name
    raise BadInput(f"{path}: not in a .zarr or .hdf container; expected a path as VOLUME.zarr/volumes/raw")


def parse_roi(text: str, within: Volume) -> Roi:
    """`z0:z1,y0:y1,x0:x1` in nm as a Roi; an end left out is the volume's own, so `1040:1280,:,:` cuts in z alone.

    Raises BadInput for another text, and as `Volume.check`.
    """
    parts = text.split(",")
    if len(parts) != within.voxel_size.dims:
        raise BadInput(
            f"ROI {text!r}: {len(parts)} ranges, expected {within.voxel_size.dims} as z0:z1,y0:y1,x0:x1 in nm"
        )
    begin, end = [], []
    for part, low, high in zip(parts, within.roi.begin, within.roi.end, strict=True):
        first, colon, last = part.strip().partition(":")
        try:
            begin.append(int(first) if first else low)
            end.append(int(last) if last else high)
        except ValueError:
            raise BadInput(f"ROI {text!r}: {part!r} is no range of nm, expected as 0:1040 or :") from None
        if not colon or begin[-1] >= end[-1]:
            raise BadInput(f"ROI {text!r}: {part!r} is empty or no range, expected as 0:1040 or :")
    roi = Roi(begin, [e - b for b, e in zip(begin, end, strict=True)])
    within.check(roi)
    return roi


def format_roi(roi: Roi) -> str:
    """The inverse of `parse_roi`."""
    return ",".join(f"{begin}:{end}" for begin, end in zip(roi.begin, roi.end, strict=True))


def _open_zarr(container: Path, name: str, mode: Literal["r", "r+"]) -> Any:
    if not container.is_dir():
        raise BadInput(f"{container}: no such volume; expected a zarr folder")
    try:
        group = zarr.open_group(container, mode=mode)
        found = group[name] if name else group
    except KeyError:
        raise BadInput(f"{container}: has no array '{name}'; it holds {_arrays_in(container)}") from None
    except (FileNotFoundError, zarr.errors.GroupNotFoundError, zarr.errors.ContainsArrayError):
        raise BadInput(f"{container}: not a zarr group; expected one that holds arrays") from None
    except (ValueError, TypeError) as error:
        raise BadInput(f"{container}/{name}: its metadata cannot be read: {error}") from None
    if not isinstance(found, zarr.Array):
        raise BadInput(f"{container}/{name}: is a group, expected an array; it holds {_arrays_in(container)}")
    return found


def _arrays_in(container: Path) -> str:
    names = []
    for folder, below, files in os.walk(container):
        if ".zarray" in files or ("zarr.json" in files and '"shape"' in (Path(folder) / "zarr.json").read_text()):
            names.append(str(Path(folder).relative_to(container)))
            below.clear()  # nothing but chunks, and there may be millions
    return ", ".join(sorted(names)[:8]) or "no arrays"


def _open_hdf5(container: Path, name: str, mode: Literal["r", "r+"]) -> Any:
    try:
        file = h5py.File(container, mode)
    except FileNotFoundError:
        raise BadInput(f"{container}: no such volume; expected an HDF5 file") from None
    except OSError as error:
        raise BadInput(f"{container}: cannot be read as HDF5: {error}") from None
    if not isinstance(file.get(name), h5py.Dataset):
        held: list[str] = []
        file.visititems(lambda key, item: held.append(key) if isinstance(item, h5py.Dataset) else None)
        raise BadInput(f"{container}: has no array '{name}'; it holds {', '.join(held[:8]) or 'no arrays'}")
    return file[name]


def _voxel_size(path: Path, attributes: dict[str, Any]) -> Coordinate:
    given = {key: _nanometres(path, attributes[key], key) for key in ("voxel_size", "resolution") if key in attributes}
    if not given:
        raise BadInput(f"{path}: no attribute 'resolution' or 'voxel_size'; expected one, in nm, as [40, 4, 4]")
    if len({tuple(value) for value in given.values()}) > 1:
        raise BadInput(f"{path}: 'voxel_size' {given['voxel_size']} and 'resolution' {given['resolution']} disagree")
    return Coordinate(next(iter(given.values())))


def _nanometres(path: Path, value: Any, key: str = "voxel_size") -> list[int]:
    numbers = _whole_numbers(path, key, value)
    if not numbers or min(numbers) < 1:
        raise BadInput(f"{path}: '{key}' holds {numbers}, expected nm above 0 per axis, as [40, 4, 4]")
    return numbers


def _whole_numbers(path: Path, key: str, value: Any) -> list[int]:
    try:
        numbers = [float(number) for number in value]
        whole = [round(number) for number in numbers]
    except (TypeError, ValueError, OverflowError):
        raise BadInput(f"{path}: '{key}' holds {value!r}, expected nm per axis, as [40, 4, 4]") from None
    if numbers != [float(n) for n in whole]:
        raise BadInput(f"{path}: '{key}' holds {numbers}, expected whole nm (funlib.geometry counts in integers)")
    return whole
