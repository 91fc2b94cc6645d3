"""Arrays on their way over HTTP: NumPy's .npy, or raw bytes with their shape and type beside them."""

import io
import math
import tokenize

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.data.grey_values import TYPES, is_grey

NPY = "application/x-npy"
HEADER = 4096
"""Bytes of a .npy file before its voxels, at most."""
_TOLD = 200
"""Characters of NumPy's reason, which may quote a whole header."""
_NO_HEADER = (ValueError, KeyError, EOFError, TypeError, AttributeError, SyntaxError, RecursionError, MemoryError,
              tokenize.TokenError)  # fmt: skip
"""How NumPy, which reads a header as Python's literals, says that it is none."""
_VERSIONS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def from_npy(body: bytes | bytearray) -> np.ndarray:
    """Return the array of a .npy file, which shares the memory of `body`; raise BadInput if it is none.

    The header is compared with the bytes behind it before any memory is taken, and objects are refused.
    """
    file = io.BytesIO(body[:HEADER])
    try:
        version = np.lib.format.read_magic(file)
        shape, is_fortran, dtype = _VERSIONS[version](file)
    except _NO_HEADER as error:
        raise BadInput(f"block: is no .npy file: {str(error)[:_TOLD]}") from None
    if any(type(size) is not int for size in shape):
        raise BadInput(f"block: is no .npy file: a shape of {shape}")
    array = from_bytes(memoryview(body)[file.tell() :], shape, dtype)
    return array.reshape(shape[::-1]).transpose() if is_fortran else array


def from_bytes(body: bytes | bytearray | memoryview, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an array of bytes in C order; raise BadInput if their number is another one.

    Args:
        body: the bytes.
        shape: z, y, x.
        dtype: any type that a network reads.
    """
    if dtype.hasobject or not is_grey(dtype):
        raise BadInput(f"block: {dtype}, expected {TYPES}")
    if len(shape) != 3 or min(shape) < 1:
        raise BadInput(f"block: a shape of {shape}, expected three sizes of at least 1 (z, y, x)")
    if math.prod(shape) * dtype.itemsize != len(body):
        sizes = "x".join(map(str, shape))
        raise BadInput(
            f"block: {len(body):,} bytes, expected {math.prod(shape) * dtype.itemsize:,} for {sizes} of {dtype}"
        )
    return np.frombuffer(body, dtype).reshape(shape)


def to_npy(array: np.ndarray) -> bytes:
    """Return an array as a .npy file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()
