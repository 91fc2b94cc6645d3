"""Columns of numbers in Parquet files.

If pandas is installed, pyarrow imports it when it converts an array from NumPy or to NumPy. That takes half a second
in every process. The functions here pass the memory of the arrays instead and convert nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emsuite.common.errors import BadInput
from emsuite.common.files import atomic_path

_TYPES = {"float": np.float32, "double": np.float64} | {
    name: np.dtype(name).type for name in ("uint64", "int64", "uint32", "int32", "uint16", "int16", "uint8", "int8")
}
"""NumPy's types by Arrow's names of them."""


def write_columns(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write arrays of numbers, all of shape (N,), as the columns of a table, atomically."""
    table = pa.table({name: _column(values) for name, values in columns.items()})
    with atomic_path(path) as temporary:
        pq.write_table(table, _local(temporary))


def read_columns(path: Path, names: Sequence[str]) -> list[np.ndarray]:
    """Read columns of a table.

    Args:
        path: The Parquet file.
        names: The columns to read.

    Returns:
        Arrays (N,) of the stored types, in the order of `names`.

    Raises:
        BadInput: The file is no table, lacks a column, or a column holds missing values or no numbers.
    """
    try:
        with pq.ParquetFile(_local(path)) as file:
            columns = file.schema_arrow.names
            table = file.read(columns=list(names)) if set(names) <= set(columns) else None
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path}: is no table with {', '.join(names)}: {error}") from None
    if table is None:
        raise BadInput(f"{path}: holds {columns}, expected {', '.join(names)}")
    return [_values(path, name, table[name]) for name in names]


def column_names(path: Path) -> list[str]:
    """Return the names of the columns of a table; raise BadInput if the file is no table."""
    try:
        return pq.read_schema(_local(path)).names
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path}: cannot be read as Parquet: {error}") from None


def number_of_rows(path: Path) -> int:
    """Return the number of rows of a table; raise BadInput if the file is no table."""
    try:
        return pq.read_metadata(_local(path)).num_rows
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path}: cannot be read as Parquet: {error}") from None


def _local(path: Path) -> Path:
    # pyarrow takes a relative path such as `s3:cube/nodes.parquet` for an address
    return path.absolute()


def _column(values: np.ndarray) -> pa.Array:
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), values.size, [None, pa.py_buffer(values)])


def _values(path: Path, name: str, column: pa.ChunkedArray) -> np.ndarray:
    dtype = _TYPES.get(str(column.type))
    if dtype is None or column.null_count:
        raise BadInput(
            f"{path}: column '{name}' holds {column.type}, {column.null_count} of them missing, expected numbers"
        )
    parts = [
        np.frombuffer(c.buffers()[1], dtype, len(c), c.offset * np.dtype(dtype).itemsize)
        for c in column.chunks
        if len(c)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype), *parts])
