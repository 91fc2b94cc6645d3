"""Arrays as torch tensors and back: what lets the targets take NumPy and torch alike."""

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
    """The array as a tensor, unsigned integers and booleans as signed integers of the same width, without a copy.

    Torch does little with unsigned integers. Equality and 0 survive the change of sign: uint64's largest id is -1.
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
    """`as_tensor` for ids; raises BadInput on anything but integers and booleans."""
    tensor = as_tensor(labels)
    if tensor.is_floating_point() or tensor.is_complex():
        raise BadInput(f"labels: {labels.dtype}, expected integers")
    return tensor


def as_numbers(there: torch.Tensor) -> torch.Tensor:
    """Booleans as float32 0 and 1; by way of bytes, which torch turns into floats six times as fast on a CPU."""
    return there.view(torch.uint8).float()


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`tensor` on `device`; to a GPU without waiting for what that has still to do."""
    if tensor.device.type == "cpu" and device.type == "cuda":
        tensor = tensor.pin_memory()  # from elsewhere a copy would hold up the thread
    return tensor.to(device, non_blocking=True)


def stacked(samples: Sequence[torch.Tensor]) -> torch.Tensor:
    """One tensor per sample of a batch along a new first axis; a single one, as most batches have, without a copy."""
    return samples[0][None] if len(samples) == 1 else torch.stack(list(samples))


def like_input(given: Array, result: torch.Tensor) -> Array:
    """`result` as a NumPy array if `given` is one, else as it is."""
    return result if isinstance(given, torch.Tensor) else result.numpy()


def like_input_labels(given: Array, result: torch.Tensor) -> Array:
    """`result`, of the width of `given`, as an array of its kind and type."""
    if isinstance(given, torch.Tensor):
        return result.view(given.dtype)
    return result.numpy().view(given.dtype.newbyteorder("=")).astype(given.dtype, copy=False)


Shape = tuple[int, ...]
