"""TensorFlow checkpoints of format V2 ("bundles"), read without TensorFlow: only what is asked for, and verified.

    PREFIX.index                    variable names, in order -> type, shape, shard, offset, size, crc32c
    PREFIX.data-00000-of-00001      the variables' values, end to end

Source: tensorflow/core/protobuf/tensor_bundle.proto and core/util/tensor_bundle.

Sorted tables as TensorFlow's checkpoints index their variables with: LevelDB's file format, and its numbers.

    block | block | ... | index block | footer          each block: entries, restart points, their number
                                                        behind it: compression (1 byte), checksum (4 bytes)
    entry   shared, unshared, length | key's rest | value       a key leaves out what it shares with the one before

Sources: google/leveldb doc/table_format.md; tensorflow/core/lib/io/table_format.txt.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np

from emsuite.common.errors import BadInput

# tensorflow/core/framework/types.proto
_DTYPES = {1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 9: "int64", 10: "bool",
           17: "uint16", 19: "float16", 22: "uint32", 23: "uint64"}  # fmt: skip
_VERSION = 1


@dataclass(frozen=True)
class Variable:
    """Where one variable lies; `dtype` is None for types that are no plain numbers, as texts."""

    name: str
    dtype: str | None
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc32c: int
    sliced: bool


class Bundle:
    """The variables of the checkpoint at `prefix`, by name.

    Raises BadInput for a bundle that is damaged, cut off, foreign, big-endian or of another version.
    """

    def __init__(self, prefix: Path):
        self.prefix = Path(prefix)
        if not self.index.is_file():
            raise BadInput(f"{self.index}: no such file; expected the index of a TensorFlow checkpoint")
        table = read_table(self.index)
        if "" not in table:
            raise BadInput(f"{self.index}: has no header; not the index of a TensorFlow checkpoint")
        try:
            self.shards = self._shards(table.pop(""))
            # what begins with a zero is the place of a slice, which the sliced variable itself names
            self.variables = {name: _variable(name, value) for name, value in table.items() if name[0] != "\0"}
        except (ValueError, IndexError, struct.error):
            raise BadInput(f"{self.index}: not the index of a TensorFlow checkpoint") from None
        self._check_sizes()

    @property
    def index(self) -> Path:
        """The file with the names."""
        return self.prefix.with_name(self.prefix.name + ".index")

    def read(self, name: str) -> np.ndarray:
        """The values of a variable, memory-mapped, after a look at their checksum."""
        variable = self.variables[name]
        where = f"{self.prefix}: variable '{name}'"
        if variable.sliced:
            raise BadInput(f"{where} is stored in slices (a partitioned variable); expected it in one piece")
        if variable.dtype is None:
            raise BadInput(f"{where} holds no plain numbers; expected float32")
        dtype = np.dtype(variable.dtype).newbyteorder("<")
        if variable.size != math.prod(variable.shape) * dtype.itemsize:
            raise BadInput(f"{where} has {variable.size} bytes, which does not fit {variable.shape} {dtype.name}")
        if variable.size == 0:
            return np.zeros(variable.shape, dtype)
        values = np.memmap(self.shards[variable.shard], dtype, "r", variable.offset, variable.shape)
        if _crc32c(values) != variable.crc32c:
            raise BadInput(f"{where} is damaged: its checksum (crc32c) differs")
        return values

    def _shards(self, header: bytes) -> list[Path]:
        fields = dict(_fields(header))
        if fields.get(2, 0) != 0:
            raise BadInput(f"{self.index}: of a big-endian machine; expected a little-endian checkpoint")
        version = fields.get(3, b"")
        if not isinstance(version, bytes) or int(dict(_fields(version)).get(2, 0)) > _VERSION:
            raise BadInput(f"{self.index}: of a newer format; expected version {_VERSION} of TensorFlow's V2 format")
        count = int(fields.get(1, 0))
        name = self.prefix.name
        shards = [self.prefix.with_name(f"{name}.data-{i:05d}-of-{count:05d}") for i in range(count)]
        for shard in shards:
            if not shard.is_file():
                raise BadInput(f"{shard}: no such file; the checkpoint's index says it has {count} of them")
        return shards

    def _check_sizes(self) -> None:
        sizes = [shard.stat().st_size for shard in self.shards]
        for variable in self.variables.values():
            if variable.sliced:
                continue
            if variable.shard >= len(sizes):
                raise BadInput(f"{self.index}: '{variable.name}' lies in a shard that there is not")
            if variable.offset + variable.size > sizes[variable.shard]:
                raise BadInput(
                    f"{self.shards[variable.shard]}: cut off: {sizes[variable.shard]} bytes, '{variable.name}' ends at "
                    f"{variable.offset + variable.size}"
                )


def _variable(name: str, entry: bytes) -> Variable:
    shape, numbers, sliced = list[int](), dict[int, int](), False
    for field, value in _fields(entry):
        if field == 2 and isinstance(value, bytes):
            dims = [dict(_fields(dim)) for number, dim in _fields(value) if number == 2 and isinstance(dim, bytes)]
            shape = [int(dim.get(1, 0)) for dim in dims]
        elif field == 7:
            sliced = True
        elif isinstance(value, int):
            numbers[field] = value
    crc = unmasked(numbers.get(6, 0))
    place = (numbers.get(3, 0), numbers.get(4, 0), numbers.get(5, 0))
    return Variable(name, _DTYPES.get(numbers.get(1, 0)), tuple(shape), *place, crc, sliced)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a protocol-buffer message."""
    place = 0
    while place < len(message):
        key, place = varint(message, place)
        field, kind = key >> 3, key & 7
        if kind == 0:
            number, place = varint(message, place)
            yield field, number
        elif kind == 2:
            length, place = varint(message, place)
            if place + length > len(message):
                raise ValueError("a field ends behind its message")
            yield field, message[place : place + length]
            place += length
        elif kind in (1, 5):
            width = 8 if kind == 1 else 4
            yield field, struct.unpack_from("<Q" if kind == 1 else "<I", message, place)[0]
            place += width
        else:
            raise ValueError(f"wire type {kind}")


def _crc32c(values: np.ndarray) -> int:
    return google_crc32c.value(values.reshape(-1).view(np.uint8))


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
