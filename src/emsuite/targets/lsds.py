"""Local shape descriptors: statistics of a neuron's shape around each of its voxels.

    channels   0-2  mean offset z y x      3-5  variance z y x      6-8  correlation zy zx yx      9  size
    in 2-D     0-1  mean offset y x        2-3  variance y x        4    correlation yx            5  size

The statistics are those of the voxels with the same label, weighted by a Gaussian around the voxel. Each channel is
scaled to [0, 1].
Source: Sheridan et al. 2022, "Local shape descriptors for neuron segmentation"; https://github.com/funkelab/lsd.

The cost grows with the volume, not with the number of labels. The volume is cut into tiles. A tile is cut into the
bounding boxes of its labels. Boxes of similar shape share batched matrix products (`moments`). On a CPU, each core
works on tiles of its own. On a GPU with Triton, `lsds_triton` takes the place of all this for (Z, Y, X).

The computation runs on a grid of samples, every n-th voxel. Coordinates count samples where they do not say voxels.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import fastremap
import numpy as np
import torch

from emsuite.common.arrays import Array, label_tensor, like_input, stacked, to_device
from emsuite.common.device import has_triton, in_pieces, one_core
from emsuite.common.errors import BadInput
from emsuite.targets.gaussian_moments import VARIANCE_FLOOR, Box, Grid, Moments, crops, moments
from emsuite.targets.label_boxes import BoxBatch, along_axis, batch_boxes, bounding_boxes

_TILE = {2: 256, 3: 48}  # samples per axis, by number of axes


@dataclass(frozen=True)
class _Labels:
    """The labels renumbered to 1 ... `count`, 0 is background, at all `voxels` and at the `samples` of the grid."""

    voxels: torch.Tensor
    samples: torch.Tensor
    count: int
    origin: torch.Tensor  # position of samples[0, 0, 0] in the whole array, in samples
    begin: torch.Tensor  # (count + 1, dims): bounding box of each number in `samples`
    end: torch.Tensor


@dataclass(frozen=True)
class _Items:
    """The N labels of a tile. Each has a box of samples to describe, and a box of samples to sum over, its source."""

    numbers: torch.Tensor  # (N)
    begin: torch.Tensor  # (N, dims)
    source: torch.Tensor
    source_shape: torch.Tensor


def local_shape_descriptors(
    labels: Array,
    sigma: float | Sequence[float],
    voxel_size: Sequence[float],
    downsample: int = 1,
    within: Sequence[slice] | None = None,
) -> Array:
    """Return the local shape descriptors of each label.

    A voxel whose label has no sample within 3 sigma gets size 1, the least variance, and the offset to the array's
    origin, as in the originals.

    Args:
        labels: integers (Z, Y, X) or (Y, X); 0 is background.
        sigma: standard deviation of the Gaussian window in nm, one or one per axis; the window ends at 3 sigma.
        voxel_size: nm, one value per axis.
        downsample: compute on every n-th voxel per axis, from the first one on, and repeat the result, as the
            originals do.
        within: compute these voxels alone, a slice per axis; the other voxels count as their surroundings.

    Returns:
        (10, Z, Y, X) or (6, Y, X) float32 in [0, 1], 0 on background, on the labels' device: mean offset / sigma / 2 +
        1/2; variance / sigma^2 (at least 1e-3 nm^2); Pearson's r / 2 + 1/2; sum of the Gaussian weights.

    Raises:
        BadInput: labels are no integers, or another argument does not fit them.
    """
    voxels = label_tensor(labels)
    grid = _grid(voxels.ndim, sigma, voxel_size, downsample)
    return like_input(labels, _compute_all(grid, voxels[None], _output_voxels(within, voxels.shape))[0])


def batch_descriptors(
    labels: torch.Tensor,
    sigma: float | Sequence[float],
    voxel_size: Sequence[float],
    downsample: int = 1,
    within: Sequence[slice] | None = None,
) -> torch.Tensor:
    """Return the local shape descriptors of a batch: labels (B, Z, Y, X), descriptors (B, 10, Z, Y, X).

    See `local_shape_descriptors` for the arguments. On a GPU with Triton the host waits for nothing.
    """
    voxels = label_tensor(labels)
    grid = _grid(voxels.ndim - 1, sigma, voxel_size, downsample)
    return _compute_all(grid, voxels, _output_voxels(within, voxels.shape[1:]))


def _compute_all(grid: Grid, batch: torch.Tensor, output: Box) -> torch.Tensor:
    if batch.is_cuda and batch.ndim == 4 and has_triton():
        from emsuite.targets import lsds_triton  # users of CPUs have no triton

        if grid.step <= lsds_triton.MOST_STEPS and batch.numel() <= lsds_triton.MOST_VOXELS:
            return lsds_triton.triton_descriptors(grid, batch, output)
    return stacked([_compute(grid, voxels, output) for voxels in batch])


def _compute(grid: Grid, voxels: torch.Tensor, output: Box) -> torch.Tensor:
    crop, inner, kept = crops(grid, output)
    channels = 1 + 2 * voxels.ndim + math.comb(voxels.ndim, 2)
    shape = [part.stop - part.start for part in inner]
    result = torch.empty((channels, *shape), dtype=torch.float32, device=voxels.device)
    if result.numel():
        with one_core():
            renumbered = _number(grid, voxels[crop], [part.start // grid.step for part in crop])

        def describe(tile: Box) -> None:
            inside = [slice(t.start - part.start, t.stop - part.start) for t, part in zip(tile, inner, strict=True)]
            _describe(grid, renumbered, tile, result[(slice(None), *inside)])

        in_pieces(describe, list(_tiles(inner, grid.step)), voxels.device)
    return result[(slice(None), *kept)]


def _grid(dims: int, sigma: float | Sequence[float], voxel_size: Sequence[float], downsample: int) -> Grid:
    if dims not in (2, 3):
        raise BadInput(f"labels: {dims} axes, expected z, y, x or y, x")
    sigmas = [float(value) for value in np.broadcast_to(sigma, dims if np.ndim(sigma) == 0 else np.shape(sigma))]
    spacing = [float(value) * downsample for value in np.atleast_1d(voxel_size)]
    if len(sigmas) != dims or not 0 < min(sigmas) <= max(sigmas) < math.inf:
        raise BadInput(f"sigma {sigma}: expected nm above 0, one value or {dims}")
    if downsample != int(downsample) or downsample < 1:
        raise BadInput(f"downsample {downsample}: expected a whole number above 0")
    if len(spacing) != dims or not 0 < min(spacing) <= max(spacing) < math.inf:
        raise BadInput(f"voxel size {voxel_size}: expected {dims} values in nm above 0")
    return Grid(int(downsample), tuple(spacing), tuple(sigmas))


def _output_voxels(within: Sequence[slice] | None, shape: Sequence[int]) -> Box:
    parts = [slice(None)] * len(shape) if within is None else within
    if len(parts) != len(shape):
        raise BadInput(f"within: {len(parts)} slices, expected {len(shape)}")
    ends = [part.indices(length) for part, length in zip(parts, shape, strict=True)]
    return tuple(slice(start, max(start, stop)) for start, stop, _ in ends)


def _number(grid: Grid, voxels: torch.Tensor, origin: Sequence[int]) -> _Labels:
    if voxels.device.type == "cpu":
        numbers = torch.from_numpy(fastremap.renumber(voxels.numpy())[0].astype(np.int64))
        count = int(numbers.max())
    else:
        ids, rank = torch.unique(voxels, return_inverse=True)
        numbers, count = torch.where(voxels == 0, 0, rank + 1), len(ids)
    samples = numbers[(slice(None, None, grid.step),) * voxels.ndim].contiguous()
    begin, end = bounding_boxes(samples, count + 1)
    return _Labels(numbers, samples, count, to_device(torch.tensor(origin), voxels.device), begin, end)


def _tiles(inner: Box, step: int) -> Iterator[Box]:
    cuts = []
    for part in inner:
        first, last = part.start // step, -(-part.stop // step)
        pieces = -(-(last - first) // _TILE[len(inner)])
        edges = [(first + (last - first) * piece // pieces) * step for piece in range(pieces + 1)]
        cuts.append([slice(begin, min(part.stop, end)) for begin, end in itertools.pairwise(edges)])
    return itertools.product(*cuts)


def _describe(grid: Grid, renumbered: _Labels, tile: Box, result: torch.Tensor) -> None:
    """Fill `result` (channels, *tile): the boxes of all labels form one table; each voxel looks up its column."""
    voxels = renumbered.voxels[tile]
    present = torch.zeros(renumbered.count + 1, dtype=torch.bool, device=voxels.device)
    present[voxels.flatten()] = True
    present[0] = False
    numbers = present.nonzero()[:, 0]
    if not len(numbers):
        result.zero_()
        return
    item_of_number = torch.full_like(present, len(numbers), dtype=torch.int64)  # background is the last item
    item_of_number[numbers] = torch.arange(len(numbers), device=voxels.device)
    item = item_of_number[voxels]
    items, described, summed = _items(grid, renumbered, tile, item, numbers)
    batches = batch_boxes(described, summed, voxels.device.type)
    background = torch.zeros(len(result), 1, device=voxels.device)
    table = torch.cat([*(_features(grid, renumbered, items, batch) for batch in batches), background], 1)
    result[:] = table.index_select(1, _entries(grid, tile, item, items, batches).flatten()).view_as(result)


def _items(
    grid: Grid, renumbered: _Labels, tile: Box, item: torch.Tensor, numbers: torch.Tensor
) -> tuple[_Items, list[list[int]], list[list[int]]]:
    """Return the tile's labels `numbers`, and per label the samples per axis to describe and to sum over."""
    begin, end = bounding_boxes(item, len(numbers) + 1, grid.step)
    first = to_device(torch.tensor([part.start // grid.step for part in tile]), item.device)
    begin, end = begin[:-1] + first, end[:-1] + first
    radius = to_device(torch.tensor([kernel.radius for kernel in grid.kernels]), item.device)
    source = torch.maximum(begin - radius, renumbered.begin[numbers])
    source_shape = (torch.minimum(end + radius, renumbered.end[numbers]) - source).clamp(min=0)
    described, summed = torch.stack([end - begin, source_shape.clamp(min=1)]).tolist()
    return _Items(numbers, begin, source, source_shape), described, summed


def _features(grid: Grid, renumbered: _Labels, items: _Items, batch: BoxBatch) -> torch.Tensor:
    """Return the descriptors of all samples in a batch of padded boxes, box after box: float32 (channels, samples)."""
    box = to_device(torch.tensor(batch.boxes), items.begin.device)
    begin, source, shape = items.begin[box], items.source[box], items.source_shape[box]
    matrices = [
        kernel.matrices(source[:, axis] - begin[:, axis], shape[:, axis], batch.rows[axis], batch.columns[axis])
        for axis, kernel in enumerate(grid.kernels)
    ]
    sums = moments(_masks(renumbered.samples, items.numbers[box], source, batch.columns), matrices)
    return _descriptors(grid, sums, begin + renumbered.origin).flatten(1)


def _masks(samples: torch.Tensor, numbers: torch.Tensor, begin: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Return float64 (B, *shape): 1 where a sample of box b carries number b, else 0; box b begins at `begin[b]`.

    Beyond the end of the array a box repeats the last sample; no matrix counts it.
    """
    dims = samples.ndim
    entry = torch.zeros((), dtype=torch.int64, device=samples.device)
    for axis, length in enumerate(shape):
        position = begin[:, axis, None] + torch.arange(length, device=samples.device)
        entry = entry + along_axis(position.clamp(max=samples.shape[axis] - 1) * samples.stride(axis), axis, dims)
    return (samples.flatten()[entry] == numbers.view(-1, *(1,) * dims)).double()


def _descriptors(grid: Grid, sums_by_power: Moments, begin: torch.Tensor) -> torch.Tensor:
    """Return descriptors from moments: float32 (channels, B, ...); `begin` (B, dims) is the box's first sample."""
    dims = len(grid.sigma)
    pairs = list(itertools.combinations(range(dims), 2))
    powers = [*((axis,) for axis in range(dims)), *((axis, axis) for axis in range(dims)), *pairs, ()]
    sums = torch.stack([sums_by_power[tuple(axes.count(axis) for axis in range(dims))] for axes in powers])
    mean, variance, pearson, count = sums[:dims], sums[dims : 2 * dims], sums[2 * dims : -1], sums[-1]
    # In place, and for all axes in one operation where possible: the host of a GPU pays for each operation.
    is_empty = count == 0  # no sample of the label within reach
    count += is_empty
    sums[:-1] /= count
    least = torch.tensor([VARIANCE_FLOOR / sigma**2 for sigma in grid.sigma], dtype=sums.dtype)
    least = along_axis(to_device(least, sums.device), 0, sums.ndim)
    torch.maximum(variance.addcmul_(mean, mean, value=-1), least, out=variance)
    for (a, b), correlation in zip(pairs, pearson, strict=True):
        correlation.addcmul_(mean[a], mean[b], value=-1).div_((variance[a] * variance[b]).sqrt_())
    for axis in range(dims):
        position = begin[:, axis, None] + torch.arange(count.shape[axis + 1], device=begin.device)
        to_origin = along_axis(position, axis, dims) * (-grid.spacing[axis] / grid.sigma[axis])
        torch.where(is_empty, to_origin.to(sums.dtype), mean[axis], out=mean[axis])
    mean.mul_(0.5).add_(0.5)
    pearson.mul_(0.5).add_(0.5)
    return sums.clamp_(0, 1).float()


def _entries(grid: Grid, tile: Box, item: torch.Tensor, items: _Items, batches: Sequence[BoxBatch]) -> torch.Tensor:
    """Return the column of each voxel of the tile in the tables of all batches, end to end, background last."""
    dims, filled = len(tile), 0
    start, stride = [0] * len(items.numbers), [[0] * dims] * len(items.numbers)
    for batch in batches:
        for index, box in enumerate(batch.boxes):
            start[box] = filled + index * math.prod(batch.rows)
            stride[box] = [math.prod(batch.rows[axis + 1 :]) for axis in range(dims)]
        filled += len(batch.boxes) * math.prod(batch.rows)
    strides = to_device(torch.tensor([*stride, [0] * dims]), item.device)
    starts = to_device(torch.tensor([*start, filled]), item.device)
    starts[:-1] -= (strides[:-1] * items.begin).sum(1)
    entry = starts[item]
    for axis, part in enumerate(tile):
        sample = torch.arange(part.start, part.stop, device=item.device) // grid.step
        entry += strides[:, axis][item] * along_axis(sample, axis, dims)
    return entry
