"""Folders of sections that pillow and tifffile write."""

import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tifffile import imwrite

from emsuite.common.errors import BadInput
from emsuite.io.formats.sections import image_folder
from emsuite.io.volume import array_names, holds_array, open_volume

RAW = (np.random.default_rng(0).integers(0, 255, (12, 40, 50)) // 8 * 8).astype(np.uint8)


def write(folder: Path, voxels: np.ndarray = RAW, kind: str = "png", first: int = 1) -> Path:
    folder.mkdir(exist_ok=True)
    for number, section in enumerate(voxels, first):
        Image.fromarray(section).save(folder / f"s{number}.{kind}")
    return folder


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.bool_])
def test_sections_are_read_in_natural_order(tmp_path: Path, dtype: type) -> None:
    voxels = RAW.astype(dtype)
    volume = open_volume(write(tmp_path / "sections", voxels), voxel_size=(40, 4, 4), offset=(80, 0, 4))
    assert (volume.shape, volume.dtype, volume.stored_block) == (voxels.shape, voxels.dtype, (1, 40, 50))
    assert tuple(volume.offset) == (80, 0, 4)
    np.testing.assert_array_equal(volume.read(), voxels)
    np.testing.assert_array_equal(volume[3:9, 5:20, 7:], voxels[3:9, 5:20, 7:])


def test_sections_of_16_bit_keep_their_values(tmp_path: Path) -> None:
    voxels = RAW.astype(np.uint16) * 257
    np.testing.assert_array_equal(open_volume(write(tmp_path / "a", voxels), voxel_size=(8, 8, 8)).read(), voxels)


def test_jpeg_and_tiff(tmp_path: Path) -> None:
    smooth = np.linspace(0, 200, RAW.size).reshape(RAW.shape).astype(np.uint8)
    jpeg = open_volume(write(tmp_path / "jpeg", smooth, "jpg"), voxel_size=(8, 8, 8)).read()
    assert np.abs(jpeg.astype(int) - smooth).max() < 4
    (tmp_path / "tiff").mkdir()
    for z, section in enumerate(RAW):
        imwrite(tmp_path / f"tiff/section_{z}.TIF", section, tile=(16, 16), compression="zlib")
    volume = open_volume(tmp_path / "tiff", voxel_size=(8, 8, 8))
    np.testing.assert_array_equal(volume.read(), RAW)
    np.testing.assert_array_equal(volume[4:11, 17:33, 2:3], RAW[4:11, 17:33, 2:3])


def test_other_files_are_no_sections(tmp_path: Path) -> None:
    folder = write(tmp_path / "sections")
    (folder / ".s3.png").write_text("a hidden file")
    (folder / "Thumbs.db").write_text("a list")
    (folder / "notes").mkdir()
    np.testing.assert_array_equal(open_volume(folder, voxel_size=(8, 8, 8)).read(), RAW)
    assert array_names(folder) == [""]
    assert holds_array(folder)
    with pytest.raises(BadInput, match="not in a"):
        open_volume(folder / "notes")
    with pytest.raises(BadInput, match="images are read only"):
        open_volume(folder, "r+")


def test_a_section_of_another_size_or_kind_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "sections")
    for odd, message in [
        (Image.new("L", (50, 41)), r"s7\.png: a section of \(41, 50\) uint8, expected \(40, 50\) uint8 as s1\.png"),
        (Image.new("I;16", (50, 40)), r"s7\.png: a section of \(40, 50\) uint16, expected"),
        (Image.new("RGB", (50, 40)), r"s7\.png: pixels of 3 colours \(RGB\), expected grey"),
        (Image.new("P", (50, 40)), r"s7\.png: pixels of a palette, expected grey"),
    ]:
        odd.save(folder / "s7.png")
        with pytest.raises(BadInput, match=message):
            open_volume(folder, voxel_size=(8, 8, 8))


def test_a_section_behind_those_looked_at_is_checked_as_it_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "sections", np.zeros((200, 3, 4), np.uint8))
    Image.new("L", (3, 4)).save(folder / "s101.png")
    volume = open_volume(folder, voxel_size=(8, 8, 8))
    volume[:100]
    with pytest.raises(BadInput, match=r"s101\.png: a section of \(4, 3\)"):
        volume[90:110]


@pytest.mark.parametrize("kind", ["png", "jpg", "tif"])
def test_a_damaged_section_is_named(tmp_path: Path, kind: str) -> None:
    folder = write(tmp_path / "sections", kind=kind)
    content = (folder / f"s5.{kind}").read_bytes()
    for end in (0, 5, 60, len(content) // 2, len(content) - 60):
        (folder / f"s5.{kind}").write_bytes(content[:end])
        with pytest.raises(BadInput, match=rf"s5\.{kind}: .*damaged"):
            open_volume(folder, voxel_size=(8, 8, 8)).read()
    (folder / f"s5.{kind}").unlink()
    os.mkfifo(folder / f"s5.{kind}")
    with pytest.raises(BadInput, match=rf"s5\.{kind}: no"):
        open_volume(folder, voxel_size=(8, 8, 8)).read()


def test_kinds_are_not_mixed(tmp_path: Path) -> None:
    folder = write(tmp_path / "sections")
    write(folder, kind="tif")
    with pytest.raises(BadInput, match="holds PNG and TIFF images, expected sections of one kind"):
        open_volume(folder, voxel_size=(8, 8, 8))
    imwrite(tmp_path / "stack.tif", RAW)
    (tmp_path / "stacks").mkdir()
    os.rename(tmp_path / "stack.tif", tmp_path / "stacks/a.tif")
    with pytest.raises(BadInput, match=r"a\.tif: holds \(12, 40, 50\) voxels, expected one section in each file"):
        open_volume(tmp_path / "stacks", voxel_size=(8, 8, 8))


def test_numbers_that_are_missing_are_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "sections")
    assert "missing_numbers" not in open_volume(folder, voxel_size=(8, 8, 8)).attributes
    (folder / "s4.png").unlink()
    (folder / "s9.png").unlink()
    assert open_volume(folder, voxel_size=(8, 8, 8)).attributes["missing_numbers"] == [4, 9]


def test_a_huge_declared_section_allocates_nothing(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 2**20, 2**20, 8, 0, 0, 0, 0)
    (tmp_path / "a").mkdir()
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    (tmp_path / "a/1.png").write_bytes(bomb)
    tracemalloc.start()
    with pytest.raises(BadInput, match=r"1\.png: is damaged: it declares 1,099,511,627,776 bytes"):
        open_volume(tmp_path / "a", voxel_size=(8, 8, 8))
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_only_the_sections_asked_for_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = open_volume(write(tmp_path / "sections"), voxel_size=(8, 8, 8))
    decoded = list[str]()
    reader = image_folder._READERS["PNG"]

    class Spy(reader):  # type: ignore[misc, valid-type]
        def load(self) -> object:
            decoded.append(Path(self.fp.name).name)
            return super().load()

    monkeypatch.setitem(image_folder._READERS, "PNG", Spy)
    volume[3:5]
    volume[4:6, :2]
    assert list(dict.fromkeys(decoded)) == ["s4.png", "s5.png", "s6.png"]
    count = len(decoded)
    volume[3:6]
    assert len(decoded) == count, "sections read last are kept"
