"""Tables of a few entries, written byte for byte by hand."""

import importlib.util
import os
import struct
from pathlib import Path
from types import ModuleType
from typing import Any

import google_crc32c
import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.published.tensorflow_bundle import Bundle, read_table, read_varint, unmask_crc32c
from emsuite.published.tensorflow_weights import iteration_of


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    """fixtures/write_bundle.py, which real TensorFlow reads (test_tensorflow_fixtures.py)."""
    path = Path(__file__).resolve().parents[1] / "fixtures" / "write_bundle.py"
    spec = importlib.util.spec_from_file_location("write_bundle", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def variables(number: int = 200) -> dict[str, np.ndarray]:
    """So many that the index has several blocks, with long common beginnings, of several types and shapes."""
    rng = np.random.default_rng(0)
    made: dict[str, np.ndarray] = {
        f"setup02/setup02/unet_layer_{i // 7}_left_{i % 7}/kernel/Adam": rng.random((i % 3, 2, 5), np.float32)
        for i in range(number)
    }
    scalars = {"beta1_power": np.float32(0.5), "gunpowder/iteration": np.int64(400_000), "a/double": np.float64(1 / 3)}
    return made | {name: np.asarray(value) for name, value in scalars.items()}


@pytest.mark.parametrize("shards", [1, 3])
def test_reads_variables_that_tensorflow_wrote(writer: ModuleType, tmp_path: Path, shards: int) -> None:
    held = variables()
    writer.write_bundle(tmp_path / "b", held, shards=shards)
    bundle = Bundle(tmp_path / "b")
    assert len(bundle.shards) == shards
    assert bundle.variables.keys() == held.keys()
    for name, values in held.items():
        read = bundle.read(name)
        assert read.shape == values.shape
        assert read.dtype == values.dtype
        np.testing.assert_array_equal(read, values)


def test_only_requested_variables_are_read_and_verified(writer: ModuleType, tmp_path: Path) -> None:
    writer.write_bundle(tmp_path / "b", {"a": np.ones(4, np.float32), "b": np.ones(4, np.float32)})
    data = next(tmp_path.glob("b.data*"))
    content = bytearray(data.read_bytes())
    content[0] ^= 1
    data.write_bytes(content)
    bundle = Bundle(tmp_path / "b")
    assert isinstance(bundle.read("b"), np.memmap)
    with pytest.raises(BadInput, match="variable 'a' is damaged: its checksum"):
        bundle.read("a")


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"big_endian": True}, "of a big-endian machine; expected a little-endian checkpoint"),
        ({"compressed": True}, "is compressed \\(Snappy\\)"),
        ({"min_consumer": 2}, "of a newer format; expected version 1"),
        ({"num_shards": 3}, "data-00000-of-00003: no such file; the checkpoint's index says it has 3"),
    ],
)
def test_odd_bundles_are_refused(writer: ModuleType, tmp_path: Path, odd: dict[str, Any], message: str) -> None:
    writer.write_bundle(tmp_path / "b", {"a": np.ones(4, np.float32)}, odd=writer.Odd(**odd))
    with pytest.raises(BadInput, match=message):
        Bundle(tmp_path / "b")


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ("sliced", "variable 'a' is stored in slices \\(a partitioned variable\\); expected it in one piece"),
        ("text", "variable 'a' holds no plain numbers; expected float32"),
        ("wrong_crc", "variable 'a' is damaged"),
    ],
)
def test_odd_variables_are_refused_by_name(writer: ModuleType, tmp_path: Path, odd: str, message: str) -> None:
    held = {"a": np.ones(4, np.float32), "b": np.ones(4, np.float32)}
    writer.write_bundle(tmp_path / "b", held, odd=writer.Odd(**{odd: "a"}))
    bundle = Bundle(tmp_path / "b")
    assert bundle.read("b").tolist() == [1, 1, 1, 1]
    with pytest.raises(BadInput, match=message):
        bundle.read("a")


def test_a_size_that_does_not_match_the_shape_is_refused(writer: ModuleType, tmp_path: Path) -> None:
    body = writer.number(1, 1) + writer.message(2, writer.message(2, writer.number(1, 5)))
    entry = body + writer.number(5, 16) + writer.varint(6 << 3 | 5) + struct.pack("<I", 0)
    table = writer.make_table([(b"", writer.header(1, writer.WHOLE)), (b"a", entry)])
    (tmp_path / "b.index").write_bytes(table)
    (tmp_path / "b.data-00000-of-00001").write_bytes(bytes(16))
    with pytest.raises(BadInput, match=r"'a' has 16 bytes, which does not fit \(5,\) float32"):
        Bundle(tmp_path / "b").read("a")


def test_other_tables_are_refused(writer: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "b.index").write_bytes(writer.make_table([(b"key", b"value")]))
    with pytest.raises(BadInput, match="has no header; not the index of a TensorFlow checkpoint"):
        Bundle(tmp_path / "b")
    (tmp_path / "b.index").write_bytes(writer.make_table([(b"", b""), (b"key", b"\xff\xff")]))
    with pytest.raises(BadInput, match="not the index of a TensorFlow checkpoint"):
        Bundle(tmp_path / "b")


def test_truncated_data_is_refused(writer: ModuleType, tmp_path: Path) -> None:
    writer.write_bundle(tmp_path / "b", {"a": np.ones(4, np.float32), "b": np.ones(2, np.float32)})
    data = tmp_path / "b.data-00000-of-00001"
    for left, name in ((23, "b"), (15, "a"), (0, "a")):
        data.write_bytes(data.read_bytes()[:left].ljust(left, b"\0"))
        with pytest.raises(BadInput, match=rf"data-00000-of-00001: cut off: {left} bytes, '{name}' ends at"):
            Bundle(tmp_path / "b")
    data.unlink()
    with pytest.raises(BadInput, match="data-00000-of-00001: no such file"):
        Bundle(tmp_path / "b")


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


def test_keys_share_their_prefixes(tmp_path: Path) -> None:
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


def test_varints() -> None:
    assert read_varint(b"\x05", 0) == (5, 1)
    assert read_varint(b"\xff\xac\x02\xff", 1) == (300, 3)


def test_unmasking_of_checksums() -> None:
    # crc32c of "foo" and its masked form, from LevelDB's own definition: rotated right by 15, plus 0xa282ead8
    crc = 0xCFC4AE1D
    assert google_crc32c.value(b"foo") == crc
    assert unmask_crc32c(((crc >> 15) + ((crc & 0x7FFF) << 17) + 0xA282EAD8) & 0xFFFFFFFF) == crc


@pytest.mark.parametrize("position", range(0, 40, 3))
def test_a_changed_byte_is_noticed(tmp_path: Path, position: int) -> None:
    path = table(tmp_path / "t", block_of((0, b"key", b"a value that is long enough")))
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(BadInput, match="damaged"):
        read_table(path)


@pytest.mark.parametrize("left", [0, 10, 47, -9, -1])
def test_truncated_tables_are_refused(tmp_path: Path, left: int) -> None:
    path = table(tmp_path / "t", block_of((0, b"key", b"value")))
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(BadInput, match="not an index of a TensorFlow checkpoint, or cut off"):
        read_table(path)


def test_compressed_blocks_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is compressed \\(Snappy\\); expected an uncompressed index"):
        read_table(table(tmp_path / "t", block_of((0, b"key", b"value")), compression=1))


def test_entries_that_point_outside_the_file_are_refused(tmp_path: Path) -> None:
    for block in (
        block_of((0, b"key", b"value"))[:-8] + struct.pack("<II", 0, 900),  # more restart points than bytes
        bytes([0, 3, 90]) + b"key" + struct.pack("<II", 0, 1),  # a value that ends behind its block
    ):
        with pytest.raises(BadInput, match="damaged, its entries cannot be read"):
            read_table(table(tmp_path / "t", block))


def varint(number: int) -> bytes:
    low = number & 0x7F
    return bytes([low | 0x80]) + varint(number >> 7) if number >> 7 else bytes([low])


def bundle(prefix: Path, header: bytes, entry: bytes = b"") -> Path:
    """An index with a header, and an entry for `gunpowder/iteration` of one shard of 64 zeros."""
    table(prefix.with_name(f"{prefix.name}.index"), block_of((0, b"", header), (0, b"gunpowder/iteration", entry)))
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(bytes(64))
    return prefix


@pytest.mark.parametrize("count", [2, 2**34, 2**63, 2**64 - 1])
def test_announced_shards_are_looked_for_one_by_one(tmp_path: Path, count: int) -> None:
    with pytest.raises(BadInput, match=rf"no such file; the checkpoint's index says it has {count} of them"):
        Bundle(bundle(tmp_path / "b", b"\x08" + varint(count)))


ONE = b"\x08\x01"
"""A header: one shard."""


@pytest.mark.parametrize(
    "entry",
    [
        b"\x08\x01\x20" + varint(2**60) + b"\x28\x04",  # an offset behind the shard
        b"\x08\x01\x20\x08\x28" + varint(2**64 - 1),  # a size of -1
        b"\x08\x01\x18" + varint(2**40) + b"\x28\x04",  # a shard that is none
        b"\x08\x01\x28" + b"\xff" * 60 + b"\x01",  # a number without end
        b"\x08\x01\x12\x0d\x12\x0b\x08" + varint(2**64 - 1) + b"\x28\x00",  # an axis of -1
        b"\x08\x01\x12\x44" + b"\x12\x02\x08\x01" * 17 + b"\x28\x04",  # 17 axes
        b"\x08",
        b"\x12\xff\x01",
        b"\x0b\x0b",
    ],
)
def test_entries_without_end_are_refused(tmp_path: Path, entry: bytes) -> None:
    with pytest.raises(BadInput):
        Bundle(bundle(tmp_path / "b", ONE, entry))


@pytest.mark.parametrize(
    "entry",
    [
        b"\x08\x07",  # texts
        b"\x08\x09\x12\x04\x12\x02\x08\x00",  # no number
        b"\x08\x09\x12\x04\x12\x02\x08\x02\x28\x10" + b"\x35" + bytes(4),  # two, with a wrong checksum
        b"\x08\x09\x12\x0d\x12\x00\x12\x09\x08" + varint(2**50) + b"\x28\x00",  # none, along a long axis
    ],
)
def test_an_iteration_that_is_none(tmp_path: Path, entry: bytes) -> None:
    with pytest.raises(BadInput):
        iteration_of(Bundle(bundle(tmp_path / "b", ONE, entry)))


def test_tables_that_unpack_without_end(tmp_path: Path) -> None:
    """Names that repeat a long one, and a block that is named again and again."""
    path = tmp_path / "t"
    block = varint(0) + varint(5000) + b"\x00" + b"a" * 5000 + struct.pack("<II", 0, 1)
    content = with_trailer(block)
    for index in (
        block_of((0, b"a", varint(0) + varint(len(block)))),
        block_of((0, b"a", varint(0) + varint(len(block))), (0, b"b", varint(0) + varint(len(block)))),
    ):
        footer = bytes([0, 0]) + varint(len(content)) + varint(len(index))
        path.write_bytes(content + with_trailer(index) + footer + bytes(40 - len(footer)) + MAGIC)
        with pytest.raises(BadInput, match="damaged, its entries cannot be read"):
            read_table(path)


def test_what_is_no_index(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "b.index")
    with pytest.raises(BadInput, match="is no regular file; expected the index of a TensorFlow checkpoint"):
        Bundle(tmp_path / "b")
