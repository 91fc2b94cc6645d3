"""Files that tifffile and pillow write, and damaged ones."""

import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tifffile import TiffFile, TiffWriter, imwrite

from emsuite.common.errors import BadInput
from emsuite.io.formats.sections import tiff
from emsuite.io.volume import array_names, create_volume, holds_array, open_volume

RAW = (np.random.default_rng(0).integers(0, 255, (7, 70, 90)) // 8 * 8).astype(np.uint8)
PART = (slice(2, 5), slice(13, 66), slice(31, 80))


def stored(path: Path) -> Any:
    return tiff.open_array(str(path), "", "r").array


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"bigtiff": True, "byteorder": ">"},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"imagej": True},
        {"imagej": True, "metadata": {"axes": "TYX"}},
        {"tile": (32, 16)},
        {"tile": (32, 16), "compression": "zlib", "predictor": True, "byteorder": ">"},
        {"rowsperstrip": 9, "compression": "zlib"},
        {"compression": "lzma"},
        {"ome": True, "metadata": {"axes": "ZYX"}, "tile": (16, 32), "compression": "zlib"},
        {"metadata": None},
        {"photometric": "miniswhite", "compression": "zlib"},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_pages_that_tifffile_writes(tmp_path: Path, how: dict[str, Any], dtype: str) -> None:
    voxels = RAW.astype(dtype) * (257 if dtype == "uint16" else 1)
    if dtype == "float32" and "predictor" in how:
        how = how | {"predictor": False}  # tifffile writes it with a further package alone
    imwrite(tmp_path / "a.tif", voxels, **how)
    array = stored(tmp_path / "a.tif")
    assert (array.shape, array.dtype) == (voxels.shape, voxels.dtype)
    np.testing.assert_array_equal(array[...], voxels)
    np.testing.assert_array_equal(array[PART], voxels[PART])


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint32", "int32", "uint64", "float16", "float64", "bool"])
def test_types_of_numbers(tmp_path: Path, dtype: str) -> None:
    voxels = RAW.astype(dtype)
    imwrite(tmp_path / "a.tif", voxels, byteorder=">")
    array = stored(tmp_path / "a.tif")
    assert array.dtype == voxels.dtype
    np.testing.assert_array_equal(array[PART], voxels[PART])


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "zstd"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pages_that_pillow_writes(tmp_path: Path, compression: str, dtype: type) -> None:
    voxels = RAW.astype(dtype)
    first, *others = [Image.fromarray(section) for section in voxels]
    first.save(tmp_path / "a.tif", save_all=True, append_images=others, compression=compression)
    np.testing.assert_array_equal(stored(tmp_path / "a.tif")[PART], voxels[PART])


def test_channels_come_first(tmp_path: Path) -> None:
    both = np.stack([RAW, 255 - RAW])
    imwrite(tmp_path / "ome.tif", both, ome=True, metadata={"axes": "CZYX"})
    imwrite(tmp_path / "imagej.tif", both.swapaxes(0, 1), imagej=True, metadata={"axes": "ZCYX"})
    for name in ("ome.tif", "imagej.tif"):
        array = stored(tmp_path / name)
        assert array.shape == both.shape
        np.testing.assert_array_equal(array[:, 2:4, 5:9], both[:, 2:4, 5:9])


@pytest.mark.parametrize(("spacing", "pixel", "unit"), [(40, 4, "nm"), (0.04, 0.004, "um"), (0.04, 0.004, "micron"),
                                                       (0.04, 0.004, "\\u00B5m"), (400, 40, "angstrom")])  # fmt: skip
def test_imagejs_spacing_is_the_voxel_size(tmp_path: Path, spacing: float, pixel: float, unit: str) -> None:
    imwrite(tmp_path / "a.tif", RAW, imagej=True, resolution=(1 / pixel, 1 / pixel),
            metadata={"axes": "ZYX", "spacing": spacing, "unit": unit})  # fmt: skip
    volume = open_volume(tmp_path / "a.tif")
    assert tuple(volume.voxel_size) == (40, 4, 4)
    assert tuple(volume.offset) == (0, 0, 0)
    np.testing.assert_array_equal(volume.read(), RAW)


def test_omes_physical_size_is_the_voxel_size(tmp_path: Path) -> None:
    size = {"PhysicalSizeZ": 0.04, "PhysicalSizeY": 6, "PhysicalSizeYUnit": "nm", "PhysicalSizeX": 50}
    imwrite(tmp_path / "a.ome.tif", RAW, metadata={"axes": "ZYX", **size, "PhysicalSizeXUnit": "Å"})
    assert tuple(open_volume(tmp_path / "a.ome.tif").voxel_size) == (40, 6, 5)


@pytest.mark.parametrize("metadata", [{}, {"spacing": 2.0}, {"unit": "um"}, {"spacing": 2.0, "unit": "pixel"},
                                      {"spacing": 0, "unit": "um"}, {"spacing": "x", "unit": "um"}])  # fmt: skip
def test_a_file_that_says_no_size_of_z_says_no_voxel_size(tmp_path: Path, metadata: dict[str, Any]) -> None:
    imwrite(tmp_path / "a.tif", RAW, imagej=True, resolution=(250, 250), metadata={"axes": "ZYX", **metadata})
    with pytest.raises(BadInput, match=r"a\.tif: no attribute 'resolution' or 'voxel_size'; .* --voxel-size"):
        open_volume(tmp_path / "a.tif")
    assert tuple(open_volume(tmp_path / "a.tif", voxel_size=(30, 6, 6)).voxel_size) == (30, 6, 6)


def test_files_of_another_kind_are_one_line(tmp_path: Path) -> None:
    imwrite(tmp_path / "rgb.tif", np.zeros((5, 20, 30, 3), np.uint8), photometric="rgb")
    imwrite(tmp_path / "movie.tif", np.zeros((3, 4, 20, 30), np.uint8), imagej=True, metadata={"axes": "TZYX"})
    imwrite(tmp_path / "deep.tif", RAW, tile=(16, 16, 16), compression="zlib")
    imwrite(tmp_path / "complex.tif", RAW.astype(np.complex64))
    (tmp_path / "text.tif").write_text("no image")
    (tmp_path / "empty.tif").touch()
    for name, message in [
        ("rgb", "pixels of 3 colours, expected grey"),
        ("movie", r"its axes are TZYX of lengths \(3, 4, 20, 30\)"),
        ("deep", "its tiles have a depth of 7"),
        ("complex", "voxels of type complex64, expected numbers"),
        ("text", "cannot be read as TIFF"),
        ("empty", "cannot be read as TIFF"),
        ("missing", "no such volume; expected a TIFF file"),
    ]:
        with pytest.raises(BadInput, match=rf"{name}\.tif: {message}"):
            open_volume(tmp_path / f"{name}.tif", voxel_size=(8, 8, 8))


@pytest.mark.parametrize("how", [{}, {"imagej": True}, {"ome": True}, {"tile": (16, 16), "compression": "zlib"},
                                 {"rowsperstrip": 9, "compression": "zlib"}, {"bigtiff": True}])  # fmt: skip
def test_a_file_cut_anywhere_is_named_or_whole(tmp_path: Path, how: dict[str, Any]) -> None:
    imwrite(tmp_path / "a.tif", RAW, **how)
    content = (tmp_path / "a.tif").read_bytes()
    refused = 0
    for end in [*range(0, 400, 7), *range(400, len(content), 401), *range(len(content) - 300, len(content), 11)]:
        (tmp_path / "cut.tif").write_bytes(content[:end])
        try:
            np.testing.assert_array_equal(stored(tmp_path / "cut.tif")[...], RAW)
        except BadInput as error:
            refused += str(error).startswith(f"{tmp_path / 'cut.tif'}: ")
    assert refused > 50


def test_a_file_with_odd_bytes_is_named_or_read(tmp_path: Path) -> None:
    imwrite(tmp_path / "a.tif", RAW, tile=(16, 16), compression="zlib")
    content = np.frombuffer((tmp_path / "a.tif").read_bytes(), np.uint8)
    generator = np.random.default_rng(1)
    refused = 0
    for _ in range(150):
        odd = content.copy()
        odd[generator.integers(0, 600, 4)] = generator.integers(0, 256, 4)
        (tmp_path / "odd.tif").write_bytes(odd.tobytes())
        try:
            array = stored(tmp_path / "odd.tif")
            if np.prod(array.shape) < 10**7:
                array[...]
        except BadInput:
            refused += 1
    assert refused > 20


def test_a_huge_declared_shape_allocates_nothing(tmp_path: Path) -> None:
    with TiffWriter(tmp_path / "huge.tif", bigtiff=True) as file:
        file.write((row for row in [b"x" * 100]), shape=(2**17, 2**17), dtype=np.uint8, rowsperstrip=2**17,
                   compression="zlib")  # fmt: skip
    tracemalloc.start()
    with pytest.raises(BadInput, match=r"huge\.tif: is damaged: it declares 17,179,869,184 bytes"):
        stored(tmp_path / "huge.tif")[0, :10, :10]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24


def test_only_the_pages_and_tiles_inside_a_box_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imwrite(tmp_path / "a.tif", RAW, tile=(16, 16), compression="zlib", metadata=None)
    with TiffFile(tmp_path / "a.tif") as file:
        expected = [(file.pages[z].dataoffsets[n], file.pages[z].databytecounts[n]) for z in (2, 3) for n in (13, 14)]
    array, read = stored(tmp_path / "a.tif"), list[tuple[int, int]]()

    def spy(path: Path, begin: int, length: int) -> bytes:
        read.append((begin, length))
        return path.read_bytes()[begin : begin + length]

    monkeypatch.setattr(tiff, "read_bytes", spy)
    np.testing.assert_array_equal(array[2:4, 33:40, 20:40], RAW[2:4, 33:40, 20:40])
    assert read == expected


def test_a_forked_process_reads_for_itself(tmp_path: Path) -> None:
    imwrite(tmp_path / "a.tif", RAW, rowsperstrip=9, compression="zlib", metadata=None)
    array = stored(tmp_path / "a.tif")
    array[0]
    child = os.fork()
    if child == 0:
        os._exit(0 if all(np.array_equal(array[z], RAW[z]) for z in range(7)) else 1)
    assert all(np.array_equal(array[z], RAW[z]) for z in reversed(range(7)))
    assert os.waitpid(child, 0)[1] == 0


def test_the_file_is_the_array(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    imwrite(path, RAW)
    assert array_names(path) == [""]
    assert holds_array(path)
    assert not holds_array(path / "volumes/raw")
    with pytest.raises(BadInput, match="has no array 'volumes/raw'; a TIFF file is one array"):
        open_volume(path / "volumes/raw")
    with pytest.raises(BadInput, match="TIFF is read only"):
        open_volume(path, "r+")
    with pytest.raises(BadInput, match="written as zarr"):
        create_volume(tmp_path / "b.tif", (2, 3, 4), np.uint8, (8, 8, 8), (0, 0, 0))
    os.rename(path, tmp_path / "without_ending")
    assert open_volume(tmp_path / "without_ending", voxel_size=(8, 8, 8)).shape == RAW.shape


@pytest.mark.parametrize(
    "how", [{"compression": "zlib"}, {"rowsperstrip": 7}, {"predictor": True, "compression": "zlib"}]
)
def test_sections_stored_in_several_ways_are_refused_and_none_is_dropped(tmp_path: Path, how: dict[str, Any]) -> None:
    with TiffWriter(tmp_path / "s.tif") as file:
        for z in range(4):
            page = np.full((20, 30), z, np.uint8)
            file.write(page, photometric="minisblack", metadata=None, contiguous=False, **(how if z % 2 else {}))
    with pytest.raises(BadInput, match=r"s\.tif: its pages of \(20, 30\) pixels are stored in several ways"):
        open_volume(tmp_path / "s.tif", voxel_size=(30, 4, 4))


@pytest.mark.parametrize("sections", [6, 20])
@pytest.mark.parametrize(
    ("page", "said"),
    [
        (RAW[0, :35, :45], r"page 4 has \(35, 45\) pixels of uint8"),
        (np.stack([RAW[0]] * 3, -1), r"page 4 has \(70, 90, 3\) pixels of uint8, rgb"),
        (RAW[0].astype(np.uint16), r"page 4 has \(70, 90\) pixels of uint16"),
    ],
    ids=["size", "colour", "type"],
)
@pytest.mark.parametrize("how", [{"metadata": None}, {}, {"metadata": None, "description": "ImageJ=1.53\nimages=9\n"}])
def test_a_page_of_another_kind_is_named(
    tmp_path: Path, sections: int, page: np.ndarray, said: str, how: dict[str, Any]
) -> None:
    with TiffWriter(tmp_path / "s.tif") as file:
        for z in range(sections):
            file.write(page if z == 3 else RAW[0], contiguous=False, **how)
    with pytest.raises(BadInput, match=said + r".*, expected \(70, 90\) pixels of uint8, minisblack as page 1"):
        tiff.open_array(str(tmp_path / "s.tif"), "", "r")


@pytest.mark.parametrize("below", [False, True], ids=["reduced", "SubIFD"])
def test_pages_that_the_file_calls_copies_are_no_sections(tmp_path: Path, below: bool) -> None:
    with TiffWriter(tmp_path / "s.tif") as file:
        for section in RAW:
            file.write(section, contiguous=False, metadata=None, subifds=1 if below else 0)
            file.write(section[::3, ::3], contiguous=False, metadata=None, subfiletype=0 if below else 1)
    np.testing.assert_array_equal(stored(tmp_path / "s.tif")[...], RAW)


@pytest.mark.parametrize("steps", [-257, 0, 257])
def test_indices_of_a_palette_are_no_greys(tmp_path: Path, steps: int) -> None:
    palette = np.stack([np.arange(256) * steps % 65536] * 3).astype(np.uint16)
    imwrite(tmp_path / "p.tif", RAW, photometric="palette", colormap=palette, metadata=None)
    if steps == 257:
        np.testing.assert_array_equal(stored(tmp_path / "p.tif")[...], RAW)
        return
    with pytest.raises(BadInput, match=r"p\.tif: page 1 has pixels of a palette, expected grey"):
        stored(tmp_path / "p.tif")


def test_that_0_is_white_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    imwrite(tmp_path / "w.tif", RAW, photometric="miniswhite", metadata=None)
    assert np.array_equal(open_volume(tmp_path / "w.tif", voxel_size=(8, 8, 8)).read(), RAW)
    assert "says that 0 is white; voxels are taken as they are stored" in caplog.text
