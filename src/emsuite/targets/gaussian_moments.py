"""Gaussian-weighted moments of many small binary boxes at once, as batched matrix products.

For a mask m, along one axis, S_p(x) = sum over t of g(t) t^p m(x + t), with a Gaussian g and t in sigmas. Along
several axes the sum factors: one product per axis, with a matrix of g(t) t^p. Because t counts from the voxel itself,
no large numbers cancel. The powers of all axes add up to 2 at most: the count, and the sums for means and covariances.

A `Grid` holds the samples that local shape descriptors are computed on, and `crops` the parts of an array that they
need. Their coordinates count samples where they do not say voxels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

Moments = dict[tuple[int, ...], torch.Tensor]
Box = tuple[slice, ...]

VARIANCE_FLOOR = 1e-3
"""The least variance, nm^2."""


@dataclass(frozen=True)
class Kernel:
    """A Gaussian of `sigma` voxels along one axis, cut at 3 sigma, that sums to 1.

    Radius and weights are those of scipy.ndimage.gaussian_filter1d with truncate=3.
    """

    sigma: float

    @property
    def radius(self) -> int:
        """Voxels between the centre and the end of the window."""
        return int(3 * self.sigma + 0.5)

    def matrices(self, begin: torch.Tensor, length: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """Return g(t) t^p for p = 0, 1, 2 and B boxes.

        Args:
            begin: (B) voxels from row 0 to column 0.
            length: (B) columns that count; the others are padding and get 0.
            rows: voxels to describe.
            columns: voxels to sum over.

        Returns:
            float64 (B, 3, rows, columns).
        """
        column = torch.arange(columns, device=begin.device)
        step = column - torch.arange(rows, device=begin.device)[:, None] + begin[:, None, None]
        counts = (step.abs() <= self.radius) & (column < length[:, None, None])
        entry = torch.where(counts, step + self.radius, 2 * self.radius + 1)
        return powers(self, begin.device)[:, entry].transpose(0, 1).contiguous()


@lru_cache(maxsize=64)
def powers(kernel: Kernel, device: torch.device) -> torch.Tensor:
    """Return g(t) t^p for p = 0, 1, 2, float64 (3, 2 radius + 2), t in sigmas.

    t runs from -radius to radius. Behind stands one 0 for every entry that does not count.
    """
    t = np.arange(-kernel.radius, kernel.radius + 1) / kernel.sigma
    weight = np.exp(-0.5 * t**2)
    table = weight / weight.sum() * t ** np.arange(3)[:, None]
    return torch.from_numpy(np.pad(table, ((0, 0), (0, 1)))).to(device)


def moments(masks: torch.Tensor, matrices: Sequence[torch.Tensor]) -> Moments:
    """Return all moments up to order 2.

    Each product removes the last axis and puts its result first. After all products the axes have their old order, and
    no array was transposed in memory. float64 keeps variances near 0 exact; autocast and TF32 do not touch it.

    Args:
        masks: float64 (B, *columns), 0 or 1.
        matrices: of each axis, from `Kernel.matrices`.

    Returns:
        float64 (B, *rows) by the power of t along each axis: (0, 0, 0) is the weighted count, (1, 0, 1) the sum of
        t_z t_x.
    """
    sums: Moments = {(): masks}
    for matrix in reversed(matrices):
        lower, sums = sums, {}
        for powers, volume in lower.items():
            orders = 3 - sum(powers)
            flat = volume.reshape(len(volume), -1, volume.shape[-1])
            product = torch.bmm(matrix[:, :orders].flatten(1, 2), flat.transpose(1, 2))
            split = product.view(len(volume), orders, matrix.shape[2], *volume.shape[1:-1])
            sums |= {(power, *powers): split[:, power] for power in range(orders)}
    return sums


@dataclass(frozen=True)
class Grid:
    """The samples: every `step`-th voxel, `spacing` nm apart, with a Gaussian window of `sigma` nm."""

    step: int
    spacing: tuple[float, ...]
    sigma: tuple[float, ...]

    @property
    def kernels(self) -> list[Kernel]:
        """The window along each axis."""
        return [Kernel(sigma / spacing) for sigma, spacing in zip(self.sigma, self.spacing, strict=True)]


def crops(grid: Grid, output: Box) -> tuple[Box, Box, Box]:
    """Return three nested crops, in voxels.

    The voxels that `output` depends on; within them `output`, extended to start on a sampled voxel; within that,
    exactly `output`.
    """
    crop, inner, kept = [], [], []
    for part, kernel in zip(output, grid.kernels, strict=True):
        sample = part.start // grid.step
        first = max(0, sample - kernel.radius) * grid.step
        crop.append(slice(first, (-(-part.stop // grid.step) + kernel.radius) * grid.step))
        inner.append(slice(sample * grid.step - first, part.stop - first))
        kept.append(slice(part.start - sample * grid.step, None))
    return tuple(crop), tuple(inner), tuple(kept)
