"""Conversion between NumPy arrays and torch tensors, so that the targets accept both."""

from collections.abc import Sequence
from types import EllipsisType
from typing import TypeVar

import numpy as np
import torch

from emsuite.common.errors import BadInput

Array = TypeVar("Array", np.ndarray, torch.Tensor)
Index = tuple[EllipsisType | slice, ...]

_SIGNED = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def as_tensor(array: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Return the array as a tensor, without a copy where its memory allows it.

    Unsigned integers and booleans become signed integers of the same width, because torch supports few operations on
    unsigned ones. Equality and 0 survive the change of sign: the largest id of uint64 becomes -1.
    """
    if isinstance(array, np.ndarray):
        native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
        if native.dtype.kind in "ub":
            native = native.view(f"i{native.dtype.itemsize}")
        return torch.from_numpy(native if native.flags.writeable else native.copy())
    if array.is_floating_point() or array.is_complex():
        return array
    return array.view(_SIGNED[array.element_size()])


def label_tensor(labels: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Return label ids as a tensor, see `as_tensor`. Raise BadInput unless they are integers or booleans."""
    tensor = as_tensor(labels)
    if tensor.is_floating_point() or tensor.is_complex():
        raise BadInput(f"labels: {labels.dtype}, expected integers")
    return tensor


def as_numbers(booleans: torch.Tensor) -> torch.Tensor:
    """Return booleans as float32 0 and 1.

    They are read as bytes first: on a CPU torch converts bytes to floats six times as fast as booleans.
    """
    return booleans.view(torch.uint8).float()


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return `tensor` on `device`. A copy to a GPU does not wait for the GPU's pending work."""
    if tensor.device.type == "cpu" and device.type == "cuda":
        tensor = tensor.pin_memory()  # a copy from other memory would block this thread
    return tensor.to(device, non_blocking=True)


def stacked(samples: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack the tensors of a batch's samples along a new first axis; a single sample is not copied."""
    return samples[0][None] if len(samples) == 1 else torch.stack(list(samples))


def like_input(array: Array, result: torch.Tensor) -> Array:
    """Return `result` as a NumPy array if `array` is one, otherwise as it is."""
    return result if isinstance(array, torch.Tensor) else result.numpy()


def like_input_labels(labels: Array, result: torch.Tensor) -> Array:
    """Return `result`, integers as wide as those of `labels`, as an array of the same kind and dtype as `labels`."""
    if isinstance(labels, torch.Tensor):
        return result.view(labels.dtype)
    return result.numpy().view(labels.dtype.newbyteorder("=")).astype(labels.dtype, copy=False)


Shape = tuple[int, ...]
