"""Local shape descriptors: what a neuron looks like around each of its voxels.

    channels   0-2  mean offset z y x      3-5  variance z y x      6-8  correlation zy zx yx      9  size
    in 2-D     0-1  mean offset y x        2-3  variance y x        4    correlation yx            5  size

of the voxels that carry the same label, weighted by a Gaussian around the voxel, each scaled to [0, 1].
Source: Sheridan et al. 2022, "Local shape descriptors for neuron segmentation"; https://github.com/funkelab/lsd.

What keeps the cost with the volume, however many labels: the volume is cut into tiles, a tile into the bounding boxes
of its labels, and boxes of similar shape go through the same batched matrix products (`moments`).
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import fastremap
import numpy as np
import torch

from emsuite.common.arrays import Array, label_tensor, like_input, to_device
from emsuite.common.errors import BadInput
from emsuite.targets.gaussian_moments import Kernel, Moments, moments
from emsuite.targets.label_boxes import Group, along_axis, bounding_boxes, group_boxes

_TILE = {2: 256, 3: 48}  # samples per axis, by number of axes
_VARIANCE_FLOOR = 1e-3  # nm^2

Box = tuple[slice, ...]


@dataclass(frozen=True)
class _Grid:
    """Every `step`-th voxel: samples `spacing` nm apart, seen through Gaussians of `sigma` nm."""

    step: int
    spacing: tuple[float, ...]
    sigma: tuple[float, ...]

    @property
    def kernels(self) -> list[Kernel]:
        return [Kernel(sigma / spacing) for sigma, spacing in zip(self.sigma, self.spacing, strict=True)]


@dataclass(frozen=True)
class _Labels:
    """Labels as numbers, 1 to `count`, 0 for background: `voxels` all of them, `samples` those on the grid."""

    voxels: torch.Tensor
    samples: torch.Tensor
    count: int
    origin: torch.Tensor  # where samples[0, 0, 0] lies in the whole array, in samples
    begin: torch.Tensor  # (count + 1, dims): bounding box of each number in `samples`
    end: torch.Tensor


@dataclass(frozen=True)
class _Items:
    """The N labels of a tile: the box of samples wanted of each, and the box of samples to sum over, its source."""

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
    """Local shape descriptors of each label, float32 in [0, 1], 0 on background.

    labels: integers (Z, Y, X), or (Y, X), 0 is background. sigma (one, or one per axis) and voxel_size in nm.
    -> (10, Z, Y, X), or (6, Y, X), on the labels' device: offset of the mean / sigma / 2 + 1/2, variance / sigma^2
    (at least 1e-3 nm^2), Pearson's r / 2 + 1/2, sum of the Gaussian's weights. The Gaussian ends at 3 sigma.

    downsample: take every so many voxels per axis (the first one included) and repeat what they yield, as the
    originals do. A voxel whose label has no sample in reach has size 1, the least variance, and the offset to the
    array's origin, also as the originals. within: compute these voxels alone; the rest serves as their surroundings.
    Raises BadInput on labels that are no integers, and on values that do not suit them.
    """
    voxels = label_tensor(labels)
    grid = _grid(voxels.ndim, sigma, voxel_size, downsample)
    return like_input(labels, _compute(grid, voxels, _voxels_wanted(within, voxels.shape)))


def _compute(grid: _Grid, voxels: torch.Tensor, wanted: Box) -> torch.Tensor:
    crop, inner, kept = _reach(grid, wanted)
    channels = 1 + 2 * voxels.ndim + math.comb(voxels.ndim, 2)
    shape = [part.stop - part.start for part in inner]
    result = torch.empty((channels, *shape), dtype=torch.float32, device=voxels.device)
    if result.numel():
        seen = _number(grid, voxels[crop], [part.start // grid.step for part in crop])
        for tile in _tiles(inner, grid.step):
            place = [slice(t.start - part.start, t.stop - part.start) for t, part in zip(tile, inner, strict=True)]
            _describe(grid, seen, tile, result[(slice(None), *place)])
    return result[(slice(None), *kept)]


def _grid(dims: int, sigma: float | Sequence[float], voxel_size: Sequence[float], downsample: int) -> _Grid:
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
    return _Grid(int(downsample), tuple(spacing), tuple(sigmas))


def _voxels_wanted(within: Sequence[slice] | None, shape: Sequence[int]) -> Box:
    parts = [slice(None)] * len(shape) if within is None else within
    if len(parts) != len(shape):
        raise BadInput(f"within: {len(parts)} slices, expected {len(shape)}")
    ends = [part.indices(length) for part, length in zip(parts, shape, strict=True)]
    return tuple(slice(start, max(start, stop)) for start, stop, _ in ends)


def _reach(grid: _Grid, wanted: Box) -> tuple[Box, Box, Box]:
    """The voxels that what is `wanted` depends on; in them, the wanted ones from a sample on; in those, the wanted."""
    crop, inner, kept = [], [], []
    for part, kernel in zip(wanted, grid.kernels, strict=True):
        sample = part.start // grid.step
        first = max(0, sample - kernel.radius) * grid.step
        crop.append(slice(first, (-(-part.stop // grid.step) + kernel.radius) * grid.step))
        inner.append(slice(sample * grid.step - first, part.stop - first))
        kept.append(slice(part.start - sample * grid.step, None))
    return tuple(crop), tuple(inner), tuple(kept)


def _number(grid: _Grid, voxels: torch.Tensor, origin: Sequence[int]) -> _Labels:
    if voxels.device.type == "cpu":
        numbers = torch.from_numpy(fastremap.renumber(voxels.numpy())[0].astype(np.int64))
        count = int(numbers.max())
    else:
        ids, place = torch.unique(voxels, return_inverse=True)
        numbers, count = torch.where(voxels == 0, 0, place + 1), len(ids)
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


def _describe(grid: _Grid, seen: _Labels, tile: Box, result: torch.Tensor) -> None:
    """Fill `result` (channels, *tile): all labels' boxes make one table, in which each voxel looks itself up."""
    voxels = seen.voxels[tile]
    present = torch.zeros(seen.count + 1, dtype=torch.bool, device=voxels.device)
    present[voxels.flatten()] = True
    present[0] = False
    numbers = present.nonzero()[:, 0]
    if not len(numbers):
        result.zero_()
        return
    item_of_number = torch.full_like(present, len(numbers), dtype=torch.int64)  # background is the last item
    item_of_number[numbers] = torch.arange(len(numbers), device=voxels.device)
    item = item_of_number[voxels]
    items, wanted, summed = _items(grid, seen, tile, item, numbers)
    groups = group_boxes(wanted, summed, voxels.device.type)
    background = torch.zeros(len(result), 1, device=voxels.device)
    table = torch.cat([*(_features(grid, seen, items, group) for group in groups), background], 1)
    result[:] = table.index_select(1, _entries(grid, tile, item, items, groups).flatten()).view_as(result)


def _items(
    grid: _Grid, seen: _Labels, tile: Box, item: torch.Tensor, numbers: torch.Tensor
) -> tuple[_Items, list[list[int]], list[list[int]]]:
    """The tile's labels `numbers`, and how many samples per axis are wanted and summed over for each."""
    begin, end = bounding_boxes(item, len(numbers) + 1, grid.step)
    first = to_device(torch.tensor([part.start // grid.step for part in tile]), item.device)
    begin, end = begin[:-1] + first, end[:-1] + first
    radius = to_device(torch.tensor([kernel.radius for kernel in grid.kernels]), item.device)
    source = torch.maximum(begin - radius, seen.begin[numbers])
    source_shape = (torch.minimum(end + radius, seen.end[numbers]) - source).clamp(min=0)
    wanted, summed = torch.stack([end - begin, source_shape.clamp(min=1)]).tolist()
    return _Items(numbers, begin, source, source_shape), wanted, summed


def _features(grid: _Grid, seen: _Labels, items: _Items, group: Group) -> torch.Tensor:
    """Descriptors of all samples wanted in a group's padded boxes, box after box: float32 (channels, samples)."""
    box = to_device(torch.tensor(group.boxes), items.begin.device)
    begin, source, shape = items.begin[box], items.source[box], items.source_shape[box]
    matrices = [
        kernel.matrices(source[:, axis] - begin[:, axis], shape[:, axis], group.rows[axis], group.columns[axis])
        for axis, kernel in enumerate(grid.kernels)
    ]
    found = moments(_masks(seen.samples, items.numbers[box], source, group.columns), matrices)
    return _descriptors(grid, found, begin + seen.origin).flatten(1)


def _masks(samples: torch.Tensor, numbers: torch.Tensor, begin: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Where `samples` carry each of `numbers` (B), in a box of `shape` from `begin` (B, dims) on: float64 (B, *shape).

    What a box has beyond the array's end repeats the last sample; no matrix counts it.
    """
    dims = samples.ndim
    entry = torch.zeros((), dtype=torch.int64, device=samples.device)
    for axis, length in enumerate(shape):
        place = begin[:, axis, None] + torch.arange(length, device=samples.device)
        entry = entry + along_axis(place.clamp(max=samples.shape[axis] - 1) * samples.stride(axis), axis, dims)
    return (samples.flatten()[entry] == numbers.view(-1, *(1,) * dims)).double()


def _descriptors(grid: _Grid, found: Moments, begin: torch.Tensor) -> torch.Tensor:
    """Descriptors from moments: float32 (channels, B, ...); `begin` (B, dims) says where in the array a box lies."""
    dims = len(grid.sigma)
    pairs = list(itertools.combinations(range(dims), 2))
    wanted = [*((axis,) for axis in range(dims)), *((axis, axis) for axis in range(dims)), *pairs, ()]
    sums = torch.stack([found[tuple(axes.count(axis) for axis in range(dims))] for axes in wanted])
    mean, variance, pearson, count = sums[:dims], sums[dims : 2 * dims], sums[2 * dims : -1], sums[-1]
    # in place, and for all axes at once where they are treated alike: a GPU's host pays for each operation
    lost = count == 0
    count += lost
    sums[:-1] /= count
    least = torch.tensor([_VARIANCE_FLOOR / sigma**2 for sigma in grid.sigma], dtype=sums.dtype)
    least = along_axis(to_device(least, sums.device), 0, sums.ndim)
    torch.maximum(variance.addcmul_(mean, mean, value=-1), least, out=variance)
    for (a, b), found_together in zip(pairs, pearson, strict=True):
        found_together.addcmul_(mean[a], mean[b], value=-1).div_((variance[a] * variance[b]).sqrt_())
    for axis in range(dims):
        place = begin[:, axis, None] + torch.arange(count.shape[axis + 1], device=begin.device)
        to_origin = along_axis(place, axis, dims) * (-grid.spacing[axis] / grid.sigma[axis])
        torch.where(lost, to_origin.to(sums.dtype), mean[axis], out=mean[axis])
    mean.mul_(0.5).add_(0.5)
    pearson.mul_(0.5).add_(0.5)
    return sums.clamp_(0, 1).float()


def _entries(grid: _Grid, tile: Box, item: torch.Tensor, items: _Items, groups: Sequence[Group]) -> torch.Tensor:
    """Where each voxel of the tile finds its descriptors in the groups' tables, laid end to end, background last."""
    dims, filled = len(tile), 0
    start, stride = [0] * len(items.numbers), [[0] * dims] * len(items.numbers)
    for group in groups:
        for place, box in enumerate(group.boxes):
            start[box] = filled + place * math.prod(group.rows)
            stride[box] = [math.prod(group.rows[axis + 1 :]) for axis in range(dims)]
        filled += len(group.boxes) * math.prod(group.rows)
    strides = to_device(torch.tensor([*stride, [0] * dims]), item.device)
    starts = to_device(torch.tensor([*start, filled]), item.device)
    starts[:-1] -= (strides[:-1] * items.begin).sum(1)
    entry = starts[item]
    for axis, part in enumerate(tile):
        sample = torch.arange(part.start, part.stop, device=item.device) // grid.step
        entry += strides[:, axis][item] * along_axis(sample, axis, dims)
    return entry
