"""One volume in every format that is read, each written by another program's library, for the matrix of formats.

A writer takes a folder and voxels (Z, Y, X), writes them with `SIZE` and `OFFSET`, and returns the path to open.
"""

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import imageio.v3
import numpy as np
import pytest
import tensorstore
import zarr
from PIL import Image
from tifffile import imwrite
from zarr.codecs import BytesCodec, TransposeCodec

SIZE, OFFSET = (29.4, 8.0, 4.6), (294.0, -16.0, 46.0)
"""nm, z y x: 10, -2 and 10 voxels."""
INTEGERS = tuple(f"{kind}int{bits}" for kind in ("u", "") for bits in (8, 16, 32, 64))
ALL = ("bool", *INTEGERS, "float16", "float32", "float64")
WIDE = (*INTEGERS, "float32", "float64")
PRECOMPUTED = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "float32")
IMAGEJ, OME = (
    ("uint8", "uint16", "float32"),
    ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64"),
)
XYZ = {"voxel_size": SIZE[::-1], "offset": OFFSET[::-1]}


@dataclass(frozen=True)
class Writer:
    """A writer, the types that its format holds, and what its files say beside the voxels."""

    write: Callable[[Path, np.ndarray], Path]
    types: tuple[str, ...] = ALL
    says: str = "size and offset"
    names: tuple[str, ...] = ("volumes/raw",)
    """Of the arrays in the container."""


def of_zarr(
    version: int, turned: bool = False, shards: bool = False, **more: Any
) -> Callable[[Path, np.ndarray], Path]:
    """By zarr-python; `turned` stores the axes x, y, z and says so."""

    def write(folder: Path, voxels: np.ndarray) -> Path:
        voxels = voxels.T if turned else voxels
        group = zarr.open_group(folder / "o.zarr", mode="w", zarr_format=version)  # type: ignore[arg-type]
        chunks = {"chunks": (4,) * voxels.ndim} | ({"shards": (8,) * voxels.ndim} if shards else {})
        dtype = voxels.dtype.newbyteorder(">") if more.get("endian") == "big" else voxels.dtype
        options = {key: value for key, value in more.items() if key != "endian"}
        array = group.create_array("volumes/raw", shape=voxels.shape, dtype=dtype, **chunks, **options)
        array[...] = voxels
        grid = {"resolution": SIZE, "offset": OFFSET} if not turned else XYZ | {"axis_names": ["x", "y", "z"]}
        array.attrs.update({key: list(value) for key, value in grid.items()})
        return folder / "o.zarr/volumes/raw"

    return write


def of_ngff(version: str) -> Callable[[Path, np.ndarray], Path]:
    """OME-NGFF, by zarr-python: the axes and transformations of the specification."""

    def write(folder: Path, voxels: np.ndarray) -> Path:
        root = zarr.create_group(folder / "o.ome.zarr", zarr_format=2 if version == "0.4" else 3)
        names = {} if version == "0.4" else {"dimension_names": ("z", "y", "x")}
        root.create_array("0", data=voxels, chunks=(4, 8, 8), **names)
        steps = [{"type": "scale", "scale": list(SIZE)}, {"type": "translation", "translation": list(OFFSET)}]
        axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
        image: dict[str, Any] = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}
        older = {"multiscales": [image | {"version": "0.4"}]}
        root.attrs.update(older if version == "0.4" else {"ome": {"version": "0.5", "multiscales": [image]}})
        return folder / "o.ome.zarr/0"

    return write


def n5(folder: Path, voxels: np.ndarray) -> Path:
    """By tensorstore; the position is an attribute of other programs."""
    spec = {"driver": "n5", "kvstore": {"driver": "file", "path": f"{folder}/o.n5/volumes/raw/"}}
    spec |= {"metadata": {"resolution": SIZE[::-1], "units": ["nm"] * 3, "blockSize": [8, 8, 4]}}
    store = tensorstore.open(spec, create=True, dtype=voxels.dtype.name, shape=voxels.shape[::-1]).result()
    store[...] = voxels.T
    document = folder / "o.n5/volumes/raw/attributes.json"
    document.write_text(json.dumps(json.loads(document.read_text()) | {"offset": OFFSET[::-1]}))
    (folder / "o.n5/attributes.json").write_text('{"n5": "2.5.1"}')
    return folder / "o.n5/volumes/raw"


def precomputed(encoding: str) -> Callable[[Path, np.ndarray], Path]:
    """By tensorstore."""

    def write(folder: Path, voxels: np.ndarray) -> Path:
        first = [round(begin / width) for begin, width in zip(OFFSET[::-1], SIZE[::-1], strict=True)]
        scale: dict[str, Any] = {"resolution": SIZE[::-1], "encoding": encoding, "voxel_offset": first}
        scale |= {"size": voxels.shape[::-1], "chunk_size": [8, 8, 8]}
        scale |= {"compressed_segmentation_block_size": [8, 8, 8]} if encoding != "raw" else {}
        kind = "segmentation" if encoding != "raw" else "image"
        spec = {"driver": "neuroglancer_precomputed", "kvstore": {"driver": "file", "path": f"{folder}/o.precomputed/"}}
        about = {"data_type": voxels.dtype.name, "num_channels": 1, "type": kind}
        spec |= {"multiscale_metadata": about, "scale_metadata": scale}
        store = tensorstore.open(spec, create=True).result()
        store[...] = voxels.T[..., None]
        return next((folder / "o.precomputed").glob("*_*_*"))

    return write


def cremi(big: bool = False, turned: bool = False) -> Callable[[Path, np.ndarray], Path]:
    """By h5py, as CREMI lays it out."""

    def write(folder: Path, voxels: np.ndarray) -> Path:
        stored = voxels.astype(voxels.dtype.newbyteorder(">")) if big else voxels
        stored = stored.T if turned else stored
        with h5py.File(folder / "o.hdf", "w") as file:
            array = file.create_dataset("volumes/raw", data=stored, chunks=(4, 4, 4), compression="gzip")
            array.attrs.update(
                XYZ | {"axis_names": ["x", "y", "z"]} if turned else {"resolution": SIZE, "offset": OFFSET}
            )
        return folder / "o.hdf/volumes/raw"

    return write


def snemi(folder: Path, voxels: np.ndarray) -> Path:
    """By h5py, as SNEMI lays it out."""
    with h5py.File(folder / "o.h5", "w") as file:
        file["main"] = voxels
    return folder / "o.h5/main"


def tiff(folder: Path, voxels: np.ndarray) -> Path:
    """By tifffile: a BigTIFF in the other order of bytes."""
    imwrite(folder / "o.tif", voxels, bigtiff=True, byteorder=">", metadata=None)
    return folder / "o.tif"


def imagej_tiff(folder: Path, voxels: np.ndarray) -> Path:
    """By tifffile, as ImageJ writes it."""
    about = {"axes": "ZYX", "spacing": SIZE[0] / 1000, "unit": "um"}
    imwrite(folder / "o.tif", voxels, imagej=True, resolution=(1000 / SIZE[2], 1000 / SIZE[1]), metadata=about)
    return folder / "o.tif"


def ome_tiff(folder: Path, voxels: np.ndarray) -> Path:
    """By tifffile."""
    size = {f"PhysicalSize{axis}": width / 1000 for axis, width in zip("ZYX", SIZE, strict=True)}
    imwrite(folder / "o.ome.tif", voxels, tile=(16, 16), compression="zlib", metadata={"axes": "ZYX", **size})
    return folder / "o.ome.tif"


def tiff_folder(folder: Path, voxels: np.ndarray) -> Path:
    """By tifffile."""
    (folder / "sections").mkdir()
    for z, section in enumerate(voxels):
        imwrite(folder / f"sections/s{z}.tif", section)
    return folder / "sections"


def png_folder(by: str) -> Callable[[Path, np.ndarray], Path]:
    """By pillow or imageio."""

    def write(folder: Path, voxels: np.ndarray) -> Path:
        (folder / "sections").mkdir()
        for z, section in enumerate(voxels):
            if by == "pillow":
                Image.fromarray(section).save(folder / f"sections/s{z}.png")
            else:
                imageio.v3.imwrite(folder / f"sections/s{z}.png", section)
        return folder / "sections"

    return write


def jpeg_folder(folder: Path, voxels: np.ndarray) -> Path:
    """By pillow."""
    (folder / "sections").mkdir()
    for z, section in enumerate(voxels):
        Image.fromarray(section).save(folder / f"sections/s{z}.jpg", quality=100)
    return folder / "sections"


def by_ngff_zarr(version: str) -> Callable[[Path, np.ndarray], Path]:
    """By ngff-zarr, if it is installed."""

    def write(folder: Path, voxels: np.ndarray) -> Path:
        library = pytest.importorskip("ngff_zarr", reason="ngff-zarr is not installed")
        scale, begin = (dict(zip("zyx", each, strict=True)) for each in (SIZE, OFFSET))
        units = dict.fromkeys("zyx", "nanometer")
        image = library.to_ngff_image(voxels, ["z", "y", "x"], scale=scale, translation=begin, axes_units=units)
        library.to_ngff_zarr(f"{folder}/o.ome.zarr", library.to_multiscales(image, scale_factors=[]), version=version)
        return folder / "o.ome.zarr/scale0/image"

    return write


def by_ome_zarr(version: str) -> Callable[[Path, np.ndarray], Path]:
    """By ome-zarr-py, if it is installed; it writes a position of 0."""

    def write(folder: Path, voxels: np.ndarray) -> Path:
        writer = pytest.importorskip("ome_zarr.writer", reason="ome-zarr is not installed")
        formats = importlib.import_module("ome_zarr.format")
        kind = formats.FormatV04() if version == "0.4" else formats.FormatV05()
        about = {"scale": dict(zip("zyx", SIZE, strict=True)), "axes_units": dict.fromkeys("zyx", "nanometer")}
        group = zarr.open_group(folder / "o.ome.zarr", mode="w", zarr_format=2 if version == "0.4" else 3)
        writer.write_image(voxels, group, fmt=kind, axes="zyx", scale_factors=[], **about)
        return folder / "o.ome.zarr/s0"

    return write


def by_cloud_volume(folder: Path, voxels: np.ndarray) -> Path:
    """By cloud-volume, if it is installed; without gzip, by which it packs files if nobody says otherwise."""
    library = pytest.importorskip("cloudvolume", reason="cloud-volume is not installed")
    first = [round(begin / width) for begin, width in zip(OFFSET[::-1], SIZE[::-1], strict=True)]
    info = library.CloudVolume.create_new_info(
        1, "image", voxels.dtype.name, "raw", SIZE[::-1], first, voxels.shape[::-1], chunk_size=[8, 8, 8]
    )
    volume = library.CloudVolume(f"file://{folder}/o.precomputed", info=info, progress=False, compress=False)
    volume.commit_info()
    volume[:, :, :] = voxels.T[..., None]
    return next((folder / "o.precomputed").glob("*_*_*"))


_TURNED = {"filters": [TransposeCodec(order=(2, 1, 0))]}
WRITERS = {
    "zarr 2": Writer(of_zarr(2)),
    "zarr 2, Fortran order": Writer(of_zarr(2, order="F")),
    "zarr 2, big-endian": Writer(of_zarr(2, endian="big")),
    "zarr 2, x y z": Writer(of_zarr(2, turned=True)),
    "zarr 3": Writer(of_zarr(3)),
    "zarr 3, shards": Writer(of_zarr(3, shards=True)),
    "zarr 3, Fortran order": Writer(of_zarr(3, **_TURNED)),
    "zarr 3, big-endian": Writer(of_zarr(3, serializer=BytesCodec(endian="big"))),
    "zarr 3, x y z": Writer(of_zarr(3, turned=True)),
    "OME-NGFF 0.4": Writer(of_ngff("0.4"), names=("0",)),
    "OME-NGFF 0.5": Writer(of_ngff("0.5"), names=("0",)),
    "N5": Writer(n5, WIDE),
    "precomputed": Writer(precomputed("raw"), PRECOMPUTED, names=("29.4",)),
    "precomputed, compressed": Writer(precomputed("compressed_segmentation"), ("uint32", "uint64"), names=("29.4",)),
    "OME-NGFF 0.4 by ngff-zarr": Writer(by_ngff_zarr("0.4"), ("uint8", "uint16", "float32"), names=("scale0/image",)),
    "OME-NGFF 0.5 by ngff-zarr": Writer(by_ngff_zarr("0.5"), ("uint8", "uint16", "float32"), names=("scale0/image",)),
    "OME-NGFF 0.4 by ome-zarr": Writer(by_ome_zarr("0.4"), ("uint8", "uint16"), "size, offset 0", ("s0",)),
    "OME-NGFF 0.5 by ome-zarr": Writer(by_ome_zarr("0.5"), ("uint8", "uint16"), "size, offset 0", ("s0",)),
    "precomputed by cloud-volume": Writer(by_cloud_volume, ("uint8", "uint64", "float32"), names=("29.4",)),
    "HDF5 of CREMI": Writer(cremi()),
    "HDF5, big-endian": Writer(cremi(big=True)),
    "HDF5, x y z": Writer(cremi(turned=True)),
    "HDF5 of SNEMI": Writer(snemi, says="nothing", names=("main",)),
    "BigTIFF, big-endian": Writer(tiff, says="nothing", names=("",)),
    "TIFF of ImageJ": Writer(imagej_tiff, IMAGEJ, "size", ("",)),
    "OME-TIFF": Writer(ome_tiff, OME, "size", ("",)),
    "folder of TIFF": Writer(tiff_folder, says="nothing", names=("",)),
    "folder of PNG": Writer(png_folder("pillow"), ("uint8", "uint16"), "nothing", ("",)),
    "folder of PNG by imageio": Writer(png_folder("imageio"), ("uint8", "uint16"), "nothing", ("",)),
    "folder of JPEG": Writer(jpeg_folder, ("uint8",), "nothing", ("",)),
}
