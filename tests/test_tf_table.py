"""Tables of a few entries, written byte for byte by hand."""

import struct
from pathlib import Path

import google_crc32c
import pytest

from emsuite.errors import BadInput
from emsuite.tf_table import read_table, unmasked, varint

MAGIC = bytes.fromhex("57fb808b247547db")


def with_trailer(block: bytes, compression: int = 0) -> bytes:
    kind = bytes([compression])
    crc = google_crc32c.value(block + kind)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return block + kind + struct.pack("<I", masked)


def block_of(*entries: tuple[int, bytes, bytes]) -> bytes:
    """Entries as (characters shared with the key before, the rest, value), and one restart point at 0."""
    body = b"".join(bytes([shared, len(rest), len(value)]) + rest + value for shared, rest, value in entries)
    return body + struct.pack("<II", 0, 1)


def table(path: Path, *blocks: bytes, compression: int = 0) -> Path:
    content, handles = b"", []
    for block in blocks:
        handles.append(bytes([len(content), len(block)]))
        content += with_trailer(block, compression)
    index = block_of(*((0, bytes([97 + i]), handle) for i, handle in enumerate(handles)))
    place = len(content)
    content += with_trailer(index)
    footer = bytes([0, 0, place, len(index)])
    path.write_bytes(content + footer + bytes(40 - len(footer)) + MAGIC)
    return path


def test_keys_share_what_they_begin_with(tmp_path: Path) -> None:
    block = block_of((0, b"", b"head"), (0, b"net/bias", b"1"), (4, b"kernel", b"22"), (10, b"/Adam", b""))
    assert read_table(table(tmp_path / "t", block)) == {
        "": b"head",
        "net/bias": b"1",
        "net/kernel": b"22",
        "net/kernel/Adam": b"",
    }


def test_several_blocks(tmp_path: Path) -> None:
    held = read_table(table(tmp_path / "t", block_of((0, b"a", b"1")), block_of((0, b"b", b"2")), block_of()))
    assert held == {"a": b"1", "b": b"2"}


def test_numbers_of_seven_bits_a_byte() -> None:
    assert varint(b"\x05", 0) == (5, 1)
    assert varint(b"\xff\xac\x02\xff", 1) == (300, 3)


def test_the_mask_of_checksums() -> None:
    # crc32c of "foo" and its masked form, from LevelDB's own definition: rotated right by 15, plus 0xa282ead8
    crc = 0xCFC4AE1D
    assert google_crc32c.value(b"foo") == crc
    assert unmasked(((crc >> 15) + ((crc & 0x7FFF) << 17) + 0xA282EAD8) & 0xFFFFFFFF) == crc


@pytest.mark.parametrize("place", range(0, 40, 3))
def test_a_changed_byte_is_noticed(tmp_path: Path, place: int) -> None:
    path = table(tmp_path / "t", block_of((0, b"key", b"a value that is long enough")))
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(BadInput, match="damaged"):
        read_table(path)


@pytest.mark.parametrize("left", [0, 10, 47, -9, -1])
def test_cut_off(tmp_path: Path, left: int) -> None:
    path = table(tmp_path / "t", block_of((0, b"key", b"value")))
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(BadInput, match="not an index of a TensorFlow checkpoint, or cut off"):
        read_table(path)


def test_compressed_blocks_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is compressed \\(Snappy\\); expected an uncompressed index"):
        read_table(table(tmp_path / "t", block_of((0, b"key", b"value")), compression=1))


def test_entries_that_lead_nowhere(tmp_path: Path) -> None:
    for block in (
        block_of((0, b"key", b"value"))[:-8] + struct.pack("<II", 0, 900),  # more restart points than bytes
        bytes([0, 3, 90]) + b"key" + struct.pack("<II", 0, 1),  # a value that ends behind its block
    ):
        with pytest.raises(BadInput, match="damaged, its entries cannot be read"):
            read_table(table(tmp_path / "t", block))
