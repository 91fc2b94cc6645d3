"""One volume through every format: those that the suite writes, and those of other programs; every type and order.

Voxels, voxel size, offset and the names of arrays are equal. What a format cannot hold is the table `CANNOT_HOLD`, and
each of its refusals is one line.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorstore
import zarr

from builders import ROOT
from dvid_server import serve_dvid
from emsuite.common.errors import BadInput
from emsuite.data.convert import Layout, convert
from emsuite.io.volume import Volume, array_names, create_volume, open_volume
from file_server import serve_files
from other_writers import ALL, OFFSET, OME, PRECOMPUTED, SIZE, WIDE, WRITERS

SHAPE, CHANNELS = (5, 18, 21), (3, 5, 18, 21)
WRITTEN: dict[str, tuple[str, dict[str, Any]]] = {
    "zarr 2": ("w.zarr/volumes/raw", {"zarr_format": 2}),
    "zarr 3": ("w.zarr/volumes/raw", {}),
    "zarr 3, shards": ("w.zarr/volumes/raw", {"chunks": (4, 8, 8), "shards": (8, 16, 16)}),
    "N5": ("w.n5/volumes/raw", {}),
    "precomputed": ("w.precomputed/29.4", {}),
    "HDF5": ("w.h5/volumes/raw", {"chunks": (4, 8, 8)}),
    "TIFF": ("w.tif", {}),
}
"""The formats that are written, with their paths and layouts."""
HOLDS = dict.fromkeys(WRITTEN, ALL) | {"N5": WIDE, "precomputed": PRECOMPUTED, "TIFF": OME}
CANNOT_HOLD = {(form, dtype) for form in WRITTEN for dtype in ALL if dtype not in HOLDS[form]}


def voxels_of(dtype: str, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Voxels that reach the ends of their type."""
    kind = np.dtype(dtype)
    voxels = np.random.default_rng(0).integers(0, 2 if kind.kind == "b" else 100, shape).astype(kind)
    if kind.kind in "iu":
        voxels.flat[:2] = np.iinfo(kind).min, np.iinfo(kind).max
    if kind.kind == "f":
        voxels.flat[:3] = np.nan, np.inf, -0.0
    return voxels


def same(volume: Volume, voxels: np.ndarray, near: int = 0, offset: Sequence[float] = OFFSET) -> None:
    """Fail if a volume has other voxels, bit for bit, or lies elsewhere."""
    assert (volume.shape, volume.dtype) == (voxels.shape, voxels.dtype)
    found = volume.read()
    assert found.tobytes() == voxels.tobytes() if not near else np.abs(found.astype(int) - voxels).max() <= near
    part = (..., slice(1, 4), slice(3, 17), slice(5, 20))
    assert near or volume[part].tobytes() == voxels[part].tobytes()
    assert [float(n) for n in volume.voxel_size] == list(SIZE)
    assert [float(n) for n in volume.offset] == list(offset)


def made(folder: Path, voxels: np.ndarray) -> Path:
    volume = create_volume(folder / "from.zarr/raw", voxels.shape, voxels.dtype, SIZE, OFFSET)
    volume.array[...] = voxels
    return volume.path


@pytest.mark.parametrize("shape", [SHAPE, CHANNELS], ids=["zyx", "czyx"])
@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("form", WRITTEN)
def test_what_the_suite_writes(form: str, dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    (name, layout), voxels = WRITTEN[form], voxels_of(dtype, shape)
    source = made(tmp_path, voxels)
    if (form, dtype) in CANNOT_HOLD:
        with pytest.raises(BadInput, match=f"{dtype}.* expected") as refused:
            convert(source, tmp_path / name, layout=Layout(**layout))
        assert "\n" not in str(refused.value)
        assert not (tmp_path / name).exists()
        return
    convert(source, tmp_path / name, layout=Layout(**layout))
    same(open_volume(tmp_path / name), voxels)
    container, *inside = Path(name).parts
    names = array_names(tmp_path / container)
    assert names == ["/".join(inside)] or (form, len(names)) == ("precomputed", 1)  # named after its voxels


def by_others(form: str, path: Path) -> np.ndarray:
    """The voxels that another program's library finds in a file of the suite."""
    if form.startswith("zarr"):
        return np.asarray(zarr.open_array(path, mode="r")[...])
    if form == "HDF5":
        with h5py.File(path.parents[1]) as file:
            return np.asarray(file["volumes/raw"][...])
    if form == "TIFF":
        from tifffile import imread

        return np.asarray(imread(path))
    driver, folder = ("n5", path) if form == "N5" else ("neuroglancer_precomputed", path.parent)
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{folder}/"}}
    found = tensorstore.open(spec, read=True).result().read().result()
    return np.asarray(found if driver == "n5" else found[..., 0]).T


@pytest.mark.parametrize("form", WRITTEN)
def test_other_libraries_read_what_the_suite_writes(form: str, tmp_path: Path) -> None:
    voxels = voxels_of("uint16")
    name, layout = WRITTEN[form]
    convert(made(tmp_path, voxels), tmp_path / name, layout=Layout(**layout))
    np.testing.assert_array_equal(by_others(form, tmp_path / name), voxels)


CASES = [(form, dtype) for form, writer in WRITERS.items() for dtype in writer.types]


@pytest.mark.parametrize(("form", "dtype"), CASES, ids=[", ".join(case) for case in CASES])
def test_what_others_write(form: str, dtype: str, tmp_path: Path) -> None:
    writer, voxels = WRITERS[form], voxels_of(dtype)
    is_jpeg = "JPEG" in form
    if is_jpeg:
        voxels = np.broadcast_to(np.arange(0, 210, 10, dtype=np.uint8), SHAPE).copy()
    path = writer.write(tmp_path, voxels)
    stated: dict[str, Any] = {"voxel_size": SIZE} if writer.says == "nothing" else {}
    if "offset" not in writer.says:
        stated["offset"] = OFFSET
    offset = (0, 0, 0) if "offset 0" in writer.says else OFFSET
    same(open_volume(path, **stated), voxels, 3 if is_jpeg else 0, offset)
    names = (path.name,) if form.startswith("precomputed") else writer.names  # the scale is called after its voxels
    assert tuple(array_names(tmp_path / path.relative_to(tmp_path).parts[0])) == names


@pytest.mark.parametrize("kind", ["zarr", "hdf5"])
@pytest.mark.parametrize("order", ["zyxc", "xyzc", "cxyz", "tczyx", "czyx"])
def test_channels_in_any_place(order: str, kind: str, tmp_path: Path) -> None:
    voxels = voxels_of("uint16", CHANNELS)
    stored = voxels[None] if "t" in order else voxels.transpose(["czyx".index(axis) for axis in order])
    space = [axis for axis in order if axis in "zyx"]
    size, offset = ([lengths["zyx".index(axis)] for axis in space] for lengths in (SIZE, OFFSET))
    about = {"axis_names": list(order), "voxel_size": size, "offset": offset}
    if kind == "zarr":
        zarr.create_array(tmp_path / "o.zarr/raw", data=stored, chunks=(4,) * stored.ndim).attrs.update(about)
        path = tmp_path / "o.zarr/raw"
    else:
        with h5py.File(tmp_path / "o.h5", "w") as file:
            file["raw"] = stored
            file["raw"].attrs.update(about)
        path = tmp_path / "o.h5/raw"
    same(open_volume(path), voxels)


@pytest.mark.parametrize("form", ["zarr 2", "zarr 3", "N5", "precomputed"])
def test_a_server_gives_what_its_files_hold(form: str, tmp_path: Path) -> None:
    voxels = voxels_of("uint16")
    path = WRITERS[form].write(tmp_path, voxels)
    with serve_files(tmp_path) as address:
        scheme = "precomputed://" if form == "precomputed" else ""
        there = path.parent if form == "precomputed" else path
        same(open_volume(f"{scheme}{address}/{there.relative_to(tmp_path).as_posix()}"), voxels)


@pytest.mark.parametrize("dtype", ["uint8", "uint64"])
def test_dvid_gives_what_it_holds(dtype: str) -> None:
    voxels = np.random.default_rng(0).integers(0, 200, SHAPE).astype(dtype)
    with serve_dvid() as server:
        volume = open_volume(server.add("it", voxels, (10, 20, 30)))
        np.testing.assert_array_equal(volume.read(), voxels)
        assert (volume.dtype, volume.voxel_size, volume.offset) == (voxels.dtype, (40, 8, 4), (400, 160, 120))


def test_the_page_says_what_each_format_holds() -> None:
    page = (ROOT / "docs/volumes.md").read_text()
    for form, types in HOLDS.items():
        without = [dtype for dtype in ALL if dtype not in types]
        assert f"| {form} | {', '.join(without) or 'nothing'} |" in page
