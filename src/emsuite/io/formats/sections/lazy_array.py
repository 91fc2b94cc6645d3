"""Arrays that are read piece by piece from files that know no slices: `LazyArray` turns an index into a box to read."""

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.common.errors import BadInput

Box = tuple[slice, ...]
"""A slice with begin and end, without step, for each axis of an array."""

_LARGEST = 2**62
_MOST_PER_BYTE = 1100
"""Bytes that one byte of a file can stand for: deflate packs 1,032 into one, and the others fewer."""
_SMALL = 2**20


class LazyArray:
    """An array, (Z, Y, X) or (C, Z, Y, X), whose boxes a function reads; it holds no voxels itself."""

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype,
        chunks: tuple[int, ...],
        read: Callable[[Box], np.ndarray],
        compression: str | None = None,
    ):
        self.shape, self.dtype, self.chunks, self.compression = shape, dtype, chunks, compression
        self.ndim = len(shape)
        self._read = read

    def __getitem__(self, index: Any) -> np.ndarray:
        """Return the voxels of an index as NumPy takes it: whole numbers, slices and an ellipsis."""
        parts = list(index) if isinstance(index, tuple) else [index]
        if (where := next((i for i, part in enumerate(parts) if part is Ellipsis), None)) is not None:
            parts[where : where + 1] = [slice(None)] * (self.ndim - len(parts) + 1)
        parts += [slice(None)] * (self.ndim - len(parts))
        if len(parts) != self.ndim:
            raise IndexError(f"{len(parts)} indices for {self.ndim} axes")
        box, rest = [], list[Any]()
        for part, length in zip(parts, self.shape, strict=True):
            if isinstance(part, slice):
                begin, end, step = part.indices(length)
                if step < 1:
                    raise IndexError(f"a step of {step}, expected one above 0")
                box.append(slice(begin, max(begin, end)))
                rest.append(slice(None, None, step))
            else:
                number = range(length)[int(part)]  # raises IndexError as NumPy does
                box.append(slice(number, number + 1))
                rest.append(0)
        if any(part.start == part.stop for part in box):
            return np.zeros([part.stop - part.start for part in box], self.dtype)[tuple(rest)]
        return self._read(tuple(box))[tuple(rest)]

    def __setitem__(self, index: Any, voxels: Any) -> None:
        """Raise BadInput: such files are read alone."""
        raise BadInput("arrays of this format are read only, expected a path as VOLUME.zarr/volumes/raw to write to")


class RecentlyRead:
    """Decoded pieces by their key, the last ones up to a number of bytes; threads may share it."""

    def __init__(self, most_bytes: int):
        self._pieces: OrderedDict[Any, np.ndarray] = OrderedDict()
        self._bytes, self._most, self._lock = 0, most_bytes, threading.Lock()

    def get(self, key: Any, read: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the piece of this key; `read` decodes it if it is not kept."""
        with self._lock:
            if key in self._pieces:
                self._pieces.move_to_end(key)
                return self._pieces[key]
        piece = read()
        with self._lock:
            if key not in self._pieces and piece.nbytes <= self._most:
                self._pieces[key] = piece
                self._bytes += piece.nbytes
            while self._bytes > self._most:
                self._bytes -= self._pieces.popitem(last=False)[1].nbytes
        return piece


def read_bytes(path: Path, begin: int, length: int) -> bytes:
    """Return a range of the bytes of a file; raise BadInput if the file ends before."""
    # a pipe would wait for a writer unless it is opened without blocking
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        size = os.fstat(file).st_size
        if not 0 <= begin <= begin + length <= size:  # before memory is allocated for them
            end = begin + length
            raise BadInput(f"{path}: is damaged: bytes {begin:,} to {end:,} of {size:,} were to be read")
        pieces = []
        while length > 0 and (piece := os.pread(file, min(length, 2**30), begin)):  # Linux reads 2 GiB at most
            pieces.append(piece)
            begin, length = begin + len(piece), length - len(piece)
        return b"".join(pieces)
    finally:
        os.close(file)


def check_size(path: Path, declared: int, stored: int) -> None:
    """Raise BadInput if so few stored bytes cannot be packed voxels of so many declared bytes."""
    if declared > max(_SMALL, _MOST_PER_BYTE * stored):
        raise BadInput(f"{path}: is damaged: it declares {declared:,} bytes of voxels in {stored:,} bytes")


def check_voxels(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise BadInput for voxels that are no numbers, or for axes that no file can have."""
    if dtype.kind not in "biuf":
        raise BadInput(f"{path}: voxels of type {dtype}, expected numbers")
    if not all(0 <= length < _LARGEST for length in shape):
        raise BadInput(f"{path}: shape {shape}, expected lengths below 2^62")


def natural_order(name: str) -> tuple[Any, ...]:
    """Return the key by which `s2.png` comes before `s10.png`."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if number % 2 else part.lower() for number, part in enumerate(parts)], name
