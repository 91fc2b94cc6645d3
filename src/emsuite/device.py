"""The device that computes, and the precision it computes in."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from emsuite.errors import BadInput


def pick_device(name: str) -> torch.device:
    """`auto` is the GPU if there is one; raises BadInput if `cuda` is asked for and there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise BadInput("--device cuda: torch sees no GPU here; use --device cpu or auto")
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


@contextmanager
def autocast(device: torch.device, precision: torch.dtype) -> Iterator[None]:
    """Run convolutions in `precision`; float32 leaves everything as it is."""
    with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
        yield
