"""TensorFlow checkpoints of format V2 ("bundles"), read without TensorFlow.

    PREFIX.index                    a sorted table: variable name -> type, shape, shard, offset, size, crc32c
    PREFIX.data-00000-of-00001      a shard: the values of its variables, one after the other

The index is a table in LevelDB's file format; its values are protocol buffers:

    block | block | ... | index block | footer          a block: entries, restart points, number of restart points
                                                        behind each block: compression (1 byte), checksum (4 bytes)
    entry   shared, unshared, length | key | value      of a key, only the bytes that differ from the previous key

Only the variables that the caller asks for are read, and their checksums are verified.

Sources: tensorflow/core/protobuf/tensor_bundle.proto and core/util/tensor_bundle; google/leveldb doc/table_format.md;
tensorflow/core/lib/io/table_format.txt.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import google_crc32c
import numpy as np

from emsuite.common.documents import check_regular
from emsuite.common.errors import BadInput

# tensorflow/core/framework/types.proto
_DTYPES = {1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 9: "int64", 10: "bool",
           17: "uint16", 19: "float16", 22: "uint32", 23: "uint64"}  # fmt: skip
_VERSION = 1
_FOOTER_BYTES = 48
_TRAILER_BYTES = 5
_MAGIC = 0xDB4775248B80FB57
_COMPRESSIONS = {1: "Snappy", 2: "Zstandard"}
_MOST_BYTES = 64 * 2**20
"""Of an index; that of a published network has 10,000."""
_MOST_ENTRIES = 100_000
_MOST_IN_NAME = 4096
_MOST_IN_VARINT = 10
_MOST_AXES = 16


@dataclass(frozen=True)
class Variable:
    """The location and type of a variable's values."""

    name: str
    dtype: str | None
    """NumPy's name of the type, or None if the values are no plain numbers (strings, for example)."""
    shape: tuple[int, ...]
    shard: int
    offset: int
    """The first byte in the shard."""
    size: int
    """Bytes."""
    crc32c: int
    sliced: bool
    """Whether the values are stored in slices, under other names."""


class Bundle:
    """The variables of the checkpoint at `prefix`: the path without `.index` and `.data-...`.

    Raises BadInput if a file is missing, damaged, truncated, big-endian, of a newer version or no such checkpoint.
    """

    def __init__(self, prefix: Path):
        self.prefix = Path(prefix)
        check_regular(self.index, "the index of a TensorFlow checkpoint")
        table = read_table(self.index)
        if "" not in table:
            raise BadInput(f"{self.index}: has no header; not the index of a TensorFlow checkpoint")
        try:
            self.shards = self._shards(table.pop(""))
            # Names that begin with a zero byte belong to the slices of a variable; its own entry is marked as sliced.
            self.variables = {name: _variable(name, value) for name, value in table.items() if name[0] != "\0"}
        except (ValueError, IndexError, struct.error):
            raise BadInput(f"{self.index}: not the index of a TensorFlow checkpoint") from None
        self._check_sizes()

    @property
    def index(self) -> Path:
        """The path of the index."""
        return self.prefix.with_name(self.prefix.name + ".index")

    def read(self, name: str) -> np.ndarray:
        """Return the values of a variable, memory-mapped; raise BadInput if their checksum differs."""
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
            return np.zeros([min(length, 1) for length in variable.shape], dtype).reshape(variable.shape)
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
        shards = []
        for number in range(count):  # one after the other: the index may announce any number
            shard = self.prefix.with_name(f"{name}.data-{number:05d}-of-{count:05d}")
            if not shard.is_file():
                raise BadInput(f"{shard}: no such file; the checkpoint's index says it has {count} of them")
            shards.append(shard)
        return shards

    def _check_sizes(self) -> None:
        sizes = [shard.stat().st_size for shard in self.shards]
        for variable in self.variables.values():
            if variable.sliced:
                continue
            if variable.shard >= len(sizes):
                raise BadInput(f"{self.index}: '{variable.name}' lies in a shard that does not exist")
            if variable.offset + variable.size > sizes[variable.shard]:
                raise BadInput(
                    f"{self.shards[variable.shard]}: cut off: {sizes[variable.shard]} bytes, '{variable.name}' ends at "
                    f"{variable.offset + variable.size}"
                )


def _variable(name: str, entry: bytes) -> Variable:
    """Return the variable that a BundleEntryProto describes."""
    shape, numbers, sliced = list[int](), dict[int, int](), False
    for field, value in _fields(entry):
        if field == 2 and isinstance(value, bytes):
            dims = [dict(_fields(dim)) for number, dim in _fields(value) if number == 2 and isinstance(dim, bytes)]
            shape = [int(dim.get(1, 0)) for dim in dims]
            if len(shape) > _MOST_AXES or any(length >= 2**63 for length in shape):
                raise ValueError("a shape of too many axes, or of negative length")
        elif field == 7:
            sliced = True
        elif isinstance(value, int):
            numbers[field] = value
    shard, offset, size = numbers.get(3, 0), numbers.get(4, 0), numbers.get(5, 0)
    crc = unmask_crc32c(numbers.get(6, 0))
    return Variable(name, _DTYPES.get(numbers.get(1, 0)), tuple(shape), shard, offset, size, crc, sliced)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and the value of each field of a protocol-buffer message."""
    position = 0
    while position < len(message):
        key, position = read_varint(message, position)
        field, wire_type = key >> 3, key & 7
        if wire_type == 0:
            number, position = read_varint(message, position)
            yield field, number
        elif wire_type == 2:
            length, position = read_varint(message, position)
            if position + length > len(message):
                raise ValueError("a field ends behind its message")
            yield field, message[position : position + length]
            position += length
        elif wire_type in (1, 5):
            width = 8 if wire_type == 1 else 4
            yield field, struct.unpack_from("<Q" if wire_type == 1 else "<I", message, position)[0]
            position += width
        else:
            raise ValueError(f"wire type {wire_type}")


def read_table(path: Path) -> dict[str, bytes]:
    """Return all keys and values of the table at `path`; raise BadInput if it is damaged, truncated or no table."""
    with open(path, "rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if not _FOOTER_BYTES <= len(content) <= _MOST_BYTES or int.from_bytes(content[-8:], "little") != _MAGIC:
        raise BadInput(f"{path}: not an index of a TensorFlow checkpoint, or cut off")
    try:
        footer = content[-_FOOTER_BYTES:]
        _, _, position = _block_handle(footer, 0)  # the metaindex block, which checkpoints leave empty
        offset, size, _ = _block_handle(footer, position)
        handles = [_block_handle(value, 0)[:2] for _, value in _entries(_block(path, content, offset, size))]
        if any(end > begin for end, begin in zip(map(sum, handles), (next_ for next_, _ in handles[1:]), strict=False)):
            raise ValueError("blocks overlap")
        blocks = (_entries(_block(path, content, offset, size)) for offset, size in handles)
        entries = list(islice((entry for block in blocks for entry in block), _MOST_ENTRIES + 1))
        if len(entries) > _MOST_ENTRIES:
            raise ValueError("too many entries")
        return {key.decode(errors="backslashreplace"): value for key, value in entries}
    except (ValueError, IndexError):
        raise BadInput(f"{path}: damaged, its entries cannot be read") from None


def _block_handle(data: bytes, position: int) -> tuple[int, int, int]:
    """Return the offset and the size of a block, and the position behind these two numbers."""
    offset, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return offset, size, position


def _block(path: Path, content: bytes, offset: int, size: int) -> bytes:
    block, trailer = content[offset : offset + size], content[offset + size : offset + size + _TRAILER_BYTES]
    if len(trailer) < _TRAILER_BYTES:
        raise ValueError("a block ends behind the file")
    if google_crc32c.value(block + trailer[:1]) != unmask_crc32c(int.from_bytes(trailer[1:], "little")):
        raise BadInput(f"{path}: damaged, a checksum (crc32c) differs")
    if trailer[0]:
        name = _COMPRESSIONS.get(trailer[0], f"kind {trailer[0]}")
        raise BadInput(f"{path}: is compressed ({name}); expected an uncompressed index, as TensorFlow writes it")
    return block


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a block."""
    restarts = int.from_bytes(block[-4:], "little")
    end, position, key = len(block) - 4 * (restarts + 1), 0, b""
    if end < 0:
        raise ValueError("more restart points than a block can hold")
    while position < end:
        shared, position = read_varint(block, position)
        unshared, position = read_varint(block, position)
        length, position = read_varint(block, position)
        if position + unshared + length > end or shared + unshared > _MOST_IN_NAME:
            raise ValueError("an entry ends behind its block, or its name has no end")
        key = key[:shared] + block[position : position + unshared]
        position += unshared + length
        yield key, block[position - length : position]


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the variable-length integer at `position` (7 bits a byte, lowest first), and the position behind it."""
    number, shift, last = 0, 0, position + _MOST_IN_VARINT
    while data[position] & 0x80:
        if position == last:
            raise ValueError("a number without end")
        number |= (data[position] & 0x7F) << shift
        position, shift = position + 1, shift + 7
    return number | data[position] << shift, position + 1


def unmask_crc32c(masked: int) -> int:
    """Return the crc32c for its masked form in a file: rotated, and a constant added."""
    rotated = (masked - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


def _crc32c(values: np.ndarray) -> int:
    return google_crc32c.value(values.reshape(-1).view(np.uint8))
