"""Whether the same computation gives the same bytes, or is done in whichever way is fastest."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.backends import cudnn

# Overlapping windows would add up in any order; ours are as long as their stride.
_HARMLESS = ".*max_pool3d_with_indices_backward.*does not have a deterministic implementation"


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Inside, torch takes its deterministic algorithms; if not `wanted`, cuDNN's fastest, by trying them.

    What has no deterministic algorithm warns. On the CPU all that is used here is deterministic for a given number of
    threads, wanted or not.
    """
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.benchmark,
    )
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the GPU is first used
        torch.use_deterministic_algorithms(True, warn_only=True)
    cudnn.benchmark = not wanted
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", _HARMLESS)
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.benchmark = before[2]
