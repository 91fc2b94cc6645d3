"""Sorted tables as TensorFlow's checkpoints index their variables with: LevelDB's file format, and its numbers.

    block | block | ... | index block | footer          each block: entries, restart points, their number
                                                        behind it: compression (1 byte), checksum (4 bytes)
    entry   shared, unshared, length | key's rest | value       a key leaves out what it shares with the one before

Sources: google/leveldb doc/table_format.md; tensorflow/core/lib/io/table_format.txt.
"""

from collections.abc import Iterator
from pathlib import Path

import google_crc32c

from emsuite.errors import BadInput

_FOOTER = 48
_MAGIC = 0xDB4775248B80FB57
_TRAILER = 5
_COMPRESSIONS = {1: "Snappy", 2: "Zstandard"}


def read_table(path: Path) -> dict[str, bytes]:
    """All keys and values of the table at `path`, checksums verified; raises BadInput if it is no whole table."""
    content = Path(path).read_bytes()
    if len(content) < _FOOTER or int.from_bytes(content[-8:], "little") != _MAGIC:
        raise BadInput(f"{path}: not an index of a TensorFlow checkpoint, or cut off")
    try:
        footer = content[-_FOOTER:]
        _, _, place = _handle(footer, 0)  # of the block of statistics, which checkpoints leave empty
        offset, size, _ = _handle(footer, place)
        blocks = [_handle(value, 0)[:2] for _, value in _entries(_block(path, content, offset, size))]
        held = [_entries(_block(path, content, offset, size)) for offset, size in blocks]
        return {key.decode(errors="backslashreplace"): value for entries in held for key, value in entries}
    except (ValueError, IndexError):
        raise BadInput(f"{path}: damaged, its entries cannot be read") from None


def varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, at `place`, and where what follows begins."""
    number = shift = 0
    while data[place] & 0x80:
        number |= (data[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
    return number | data[place] << shift, place + 1


def unmasked(stored: int) -> int:
    """The crc32c that is stored as `stored`: rotated, and a constant added."""
    rotated = (stored - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


def _handle(data: bytes, place: int) -> tuple[int, int, int]:
    offset, place = varint(data, place)
    size, place = varint(data, place)
    return offset, size, place


def _block(path: Path, content: bytes, offset: int, size: int) -> bytes:
    block, trailer = content[offset : offset + size], content[offset + size : offset + size + _TRAILER]
    if len(trailer) < _TRAILER:
        raise ValueError("a block ends behind the file")
    if google_crc32c.value(block + trailer[:1]) != unmasked(int.from_bytes(trailer[1:], "little")):
        raise BadInput(f"{path}: damaged, a checksum (crc32c) differs")
    if trailer[0]:
        name = _COMPRESSIONS.get(trailer[0], f"kind {trailer[0]}")
        raise BadInput(f"{path}: is compressed ({name}); expected an uncompressed index, as TensorFlow writes it")
    return block


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    restarts = int.from_bytes(block[-4:], "little")
    end, place, key = len(block) - 4 * (restarts + 1), 0, b""
    if end < 0:
        raise ValueError("more restart points than a block can hold")
    while place < end:
        shared, place = varint(block, place)
        unshared, place = varint(block, place)
        length, place = varint(block, place)
        if place + unshared + length > end:
            raise ValueError("an entry ends behind its block")
        key = key[:shared] + block[place : place + unshared]
        place += unshared + length
        yield key, block[place - length : place]
