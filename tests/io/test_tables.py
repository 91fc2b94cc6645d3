import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emsuite.common.errors import BadInput
from emsuite.io.tables import column_names, number_of_rows, read_columns, write_columns

COLUMNS = {
    "id": np.array([1, 2**64 - 1, 7], np.uint64),
    "score": np.array([0.5, np.inf, np.nan], np.float32),
    "z": np.array([0.1, -3, 1e300]),
    "size": np.array([-1, 0, 2**40]),
}


def test_what_is_written_is_read(tmp_path):
    write_columns(tmp_path / "a.parquet", COLUMNS)
    assert column_names(tmp_path / "a.parquet") == list(COLUMNS)
    assert number_of_rows(tmp_path / "a.parquet") == 3
    for name, values in zip(["z", "id"], read_columns(tmp_path / "a.parquet", ["z", "id"]), strict=True):
        assert values.dtype == COLUMNS[name].dtype
        np.testing.assert_array_equal(values, COLUMNS[name])


def test_pyarrow_reads_and_writes_the_same(tmp_path):
    write_columns(tmp_path / "a.parquet", COLUMNS)
    table = pq.read_table(tmp_path / "a.parquet")
    for name, values in COLUMNS.items():
        np.testing.assert_array_equal(table[name].to_numpy(), values)
    pq.write_table(pa.table(COLUMNS), tmp_path / "b.parquet", row_group_size=2)  # in two chunks
    for values, expected in zip(read_columns(tmp_path / "b.parquet", list(COLUMNS)), COLUMNS.values(), strict=True):
        np.testing.assert_array_equal(values, expected)


def test_empty_columns_and_strided_ones(tmp_path):
    write_columns(tmp_path / "a.parquet", {"a": np.empty(0, np.uint64), "b": np.arange(0)[::2]})
    assert [values.size for values in read_columns(tmp_path / "a.parquet", ["a", "b"])] == [0, 0]
    write_columns(tmp_path / "a.parquet", {"a": np.arange(6)[::-2]})
    assert read_columns(tmp_path / "a.parquet", ["a"])[0].tolist() == [5, 3, 1]


def test_what_is_no_such_table_is_refused(tmp_path):
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(BadInput, match=r"text.parquet: is no table with a: "):
        read_columns(tmp_path / "text.parquet", ["a"])
    with pytest.raises(BadInput, match=r"text.parquet: cannot be read as Parquet"):
        column_names(tmp_path / "text.parquet")
    with pytest.raises(BadInput, match=r"none.parquet: is no table"):
        read_columns(tmp_path / "none.parquet", ["a"])
    pq.write_table(pa.table({"a": ["x"], "b": pa.array([None], pa.int64())}), tmp_path / "odd.parquet")
    with pytest.raises(BadInput, match=r"odd.parquet: holds \['a', 'b'\], expected a, c"):
        read_columns(tmp_path / "odd.parquet", ["a", "c"])
    with pytest.raises(BadInput, match="column 'a' holds string, 0 of them missing, expected numbers"):
        read_columns(tmp_path / "odd.parquet", ["a"])
    with pytest.raises(BadInput, match="column 'b' holds int64, 1 of them missing"):
        read_columns(tmp_path / "odd.parquet", ["b"])


def test_pandas_is_left_alone(tmp_path):
    code = f"""
import sys, numpy as np
from pathlib import Path
from emsuite.io.tables import read_columns, write_columns
write_columns(Path({str(tmp_path)!r}, "a.parquet"), {{"a": np.arange(5)}})
assert read_columns(Path({str(tmp_path)!r}, "a.parquet"), ["a"])[0].tolist() == [0, 1, 2, 3, 4]
assert "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("folder", ["s3:cube", "a::b", "C:", "größe, @=1"])
def test_a_path_is_no_address(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    path = Path(folder) / "nodes.parquet"
    write_columns(path, COLUMNS)
    assert (tmp_path / path).exists()
    assert column_names(path) == list(COLUMNS)
    assert number_of_rows(path) == 3
    assert read_columns(path, ["size"])[0].tolist() == COLUMNS["size"].tolist()
