import importlib.util
import struct
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from emsuite.errors import BadInput
from emsuite.tf_checkpoint import Bundle


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    """fixtures/write_bundle.py, which real TensorFlow reads (test_tensorflow_fixtures.py)."""
    path = Path(__file__).parent / "fixtures" / "write_bundle.py"
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
def test_reads_what_was_written(writer: ModuleType, tmp_path: Path, shards: int) -> None:
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


def test_only_what_is_asked_for_is_looked_at(writer: ModuleType, tmp_path: Path) -> None:
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


def test_a_size_that_does_not_fit_the_shape(writer: ModuleType, tmp_path: Path) -> None:
    body = writer.number(1, 1) + writer.message(2, writer.message(2, writer.number(1, 5)))
    entry = body + writer.number(5, 16) + writer.varint(6 << 3 | 5) + struct.pack("<I", 0)
    table = writer.make_table([(b"", writer.header(1, writer.WHOLE)), (b"a", entry)])
    (tmp_path / "b.index").write_bytes(table)
    (tmp_path / "b.data-00000-of-00001").write_bytes(bytes(16))
    with pytest.raises(BadInput, match=r"'a' has 16 bytes, which does not fit \(5,\) float32"):
        Bundle(tmp_path / "b").read("a")


def test_tables_that_are_no_index_of_a_checkpoint(writer: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "b.index").write_bytes(writer.make_table([(b"key", b"value")]))
    with pytest.raises(BadInput, match="has no header; not the index of a TensorFlow checkpoint"):
        Bundle(tmp_path / "b")
    (tmp_path / "b.index").write_bytes(writer.make_table([(b"", b""), (b"key", b"\xff\xff")]))
    with pytest.raises(BadInput, match="not the index of a TensorFlow checkpoint"):
        Bundle(tmp_path / "b")


def test_data_cut_off_anywhere(writer: ModuleType, tmp_path: Path) -> None:
    writer.write_bundle(tmp_path / "b", {"a": np.ones(4, np.float32), "b": np.ones(2, np.float32)})
    data = tmp_path / "b.data-00000-of-00001"
    for left, name in ((23, "b"), (15, "a"), (0, "a")):
        data.write_bytes(data.read_bytes()[:left].ljust(left, b"\0"))
        with pytest.raises(BadInput, match=rf"data-00000-of-00001: cut off: {left} bytes, '{name}' ends at"):
            Bundle(tmp_path / "b")
    data.unlink()
    with pytest.raises(BadInput, match="data-00000-of-00001: no such file"):
        Bundle(tmp_path / "b")
