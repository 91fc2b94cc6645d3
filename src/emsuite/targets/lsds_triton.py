"""Local shape descriptors on a GPU in two kernels of Triton, without a wait of the host: for CUDA graphs, too.

The grid of samples is cut into columns, `_Blocks.deep` samples of the grid along z. The first kernel lists the labels
of each column: an entry is the voxel where a label appears first in its column. The list stays on the GPU, as does its
length. The second kernel takes entry by entry. It sums over the window of the column and writes the descriptors to the
column's voxels of the label. The kernels are in `lsds_kernels`.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import triton

from emsuite.targets.gaussian_moments import VARIANCE_FLOOR, Box, Grid, Kernel, crops, powers
from emsuite.targets.lsds_kernels import describe, list_entries

MOST_VOXELS = 2**30
"""Larger arrays do not fit the kernels' int32 indices."""
MOST_STEPS = 4
"""The first kernel compares all voxels of a column, the cube of the grid's step times `_Blocks.deep`."""
_CHANNELS = 10
_LISTED = 1024  # voxels per program of the first kernel


@dataclass(frozen=True)
class _Blocks:
    """How the second kernel is cut: all powers of two."""

    deep: int = 4
    """Samples of the grid in a column, along z."""
    split: int = 4
    """Warps of a program, which share the planes of a window."""
    entries: int = 32
    """Entries of a program."""
    unroll: int = 4
    """Samples of a row per turn of the innermost loop."""


def triton_descriptors(grid: Grid, voxels: torch.Tensor, output: Box, blocks: _Blocks | None = None) -> torch.Tensor:
    """Return the descriptors of a batch, as `emsuite.targets.lsds.local_shape_descriptors` does of a sample.

    The first call with other settings makes tables on the GPU, for which the host waits; later calls can be captured.

    Args:
        grid: the samples; `step` is at most `MOST_STEPS`.
        voxels: labels (B, Z, Y, X), any integers, at most `MOST_VOXELS`; 0 is background.
        output: the voxels to describe, a slice per axis.
        blocks: how to cut the work; None: as is fastest.

    Returns:
        float32 (B, 10, *output) in [0, 1], on the device of `voxels`.
    """
    blocks = blocks or _Blocks()
    crop, inner, kept = crops(grid, output)
    surroundings = voxels[(slice(None), *crop)]
    labels = surroundings[(slice(None), *inner)].contiguous()
    batch, *shape = labels.shape
    result = torch.empty((batch, _CHANNELS, *shape), dtype=torch.float32, device=voxels.device)
    if result.numel():
        every_nth = surroundings[(slice(None), *(slice(None, None, grid.step),) * 3)]
        entries = torch.empty(labels.numel(), dtype=torch.int32, device=voxels.device)
        count = torch.zeros(1, dtype=torch.int32, device=voxels.device)
        extents = (labels.numel(), *shape)
        with torch.cuda.device_of(voxels):
            programs = (triton.cdiv(labels.numel(), _LISTED),)
            list_entries[programs](
                labels, result, entries, count, *extents, STEP=grid.step, DEEP=blocks.deep, LISTED=_LISTED
            )
            origin = [part.start // grid.step for part in output]
            before = [part.start // grid.step for part in inner]
            _launch(grid, blocks, (labels, every_nth, result, entries, count), before, origin)
    return result[(slice(None), slice(None), *kept)]


def _launch(
    grid: Grid, blocks: _Blocks, tensors: Sequence[torch.Tensor], before: Sequence[int], origin: Sequence[int]
) -> None:
    """Run the second kernel; `before` the first sample to describe lie so many others."""
    labels, every_nth, result, entries, count = tensors
    _, *shape = labels.shape
    reach = [min(k.radius, n - 1) for k, n in zip(grid.kernels, every_nth.shape[1:], strict=True)]
    length = triton.cdiv(2 * reach[2] + 1, blocks.unroll) * blocks.unroll
    cells = [-(-size // grid.step) for size in shape]
    cells[0] = triton.cdiv(cells[0], blocks.deep) * blocks.deep
    wanted = [cells[0] + 2 * reach[0], cells[1] + 2 * reach[1], cells[2] + length - 1]
    first = [r - b for r, b in zip(reach, before, strict=True)]
    samples = _padded(every_nth, first, wanted)
    lengths = (2 * reach[0] + 1, 2 * reach[1] + 1, length)
    tables = [_table(*arguments, labels.device) for arguments in zip(grid.kernels, reach, lengths, strict=True)]
    programs = min(triton.cdiv(labels.numel(), blocks.entries), _most_programs(labels.device))
    describe[(programs,)](
        labels, samples, result, entries, count, *tables, _scales(grid, labels.device), *shape, *wanted, *first[:2],
        first[0] + every_nth.shape[1], first[1] + every_nth.shape[2], *origin,
        STEP=grid.step, DEEP=blocks.deep, SPLIT=blocks.split, ENTRIES=blocks.entries, UNROLL=blocks.unroll,
        Z_REACH=reach[0], Y_REACH=reach[1], X_REACH=reach[2], LENGTH=length, num_warps=blocks.split,
    )  # fmt: skip


def _padded(samples: torch.Tensor, first: Sequence[int], shape: Sequence[int]) -> torch.Tensor:
    """Return the samples (B, Z, Y, X) within zeros, (B, *shape), from `first` on."""
    padded = samples.new_zeros(len(samples), *shape)
    inside = (slice(begin, begin + size) for begin, size in zip(first, samples.shape[1:], strict=True))
    padded[(slice(None), *inside)] = samples
    return padded


# The tables are kept for good, since captured graphs go on reading them.
@functools.cache
def _table(kernel: Kernel, reach: int, length: int, device: torch.device) -> torch.Tensor:
    """Return g(t) t^p for p = 0, 1, 2, float64 (length, 3), for steps from -reach to reach, and zeros behind."""
    middle = powers(kernel, torch.device("cpu"))[:, kernel.radius - reach : kernel.radius + reach + 1].T
    return torch.nn.functional.pad(middle, (0, 0, 0, length - len(middle))).contiguous().to(device)


@functools.cache
def _scales(grid: Grid, device: torch.device) -> torch.Tensor:
    """Return the least variance in sigma^2 and the spacing of samples in sigma, float64 (6), z y x."""
    sigma = np.array(grid.sigma)
    return torch.from_numpy(np.concatenate([VARIANCE_FLOOR / sigma**2, np.array(grid.spacing) / sigma])).to(device)


@functools.cache
def _most_programs(device: torch.device) -> int:
    """Return the programs of the second kernel, at most: a few per multiprocessor, each of which takes many blocks."""
    return 16 * torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2
