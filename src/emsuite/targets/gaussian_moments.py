"""Gaussian-weighted moments of many small binary boxes at once, as batched matrix products.

For a mask m, along one axis, S_p(x) = sum over t of g(t) t^p m(x + t), with a Gaussian g and t in sigmas. Along
several axes the sum factors: one product per axis, with a matrix of g(t) t^p. As t counts from the voxel itself,
nothing large cancels. Powers add up to 2 at most: the count, sums for the means, sums for the covariances.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

Moments = dict[tuple[int, ...], torch.Tensor]


@dataclass(frozen=True)
class Kernel:
    """A Gaussian of `sigma` voxels along one axis, cut at 3 sigma, that sums to 1.

    Radius and weights are those of scipy.ndimage.gaussian_filter1d with truncate=3.
    """

    sigma: float

    @property
    def radius(self) -> int:
        """Voxels that it reaches to each side."""
        return int(3 * self.sigma + 0.5)

    def matrices(self, begin: torch.Tensor, length: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """g(t) t^p for p = 0, 1, 2, of B boxes: float64 (B, 3, rows, columns).

        A row is a voxel where the sum is wanted, a column one that it sums over. Column 0 lies `begin` (B) voxels
        after row 0, and only the first `length` (B) columns count.
        """
        column = torch.arange(columns, device=begin.device)
        step = column - torch.arange(rows, device=begin.device)[:, None] + begin[:, None, None]
        counts = (step.abs() <= self.radius) & (column < length[:, None, None])
        entry = torch.where(counts, step + self.radius, 2 * self.radius + 1)
        return _powers(self, begin.device)[:, entry].transpose(0, 1).contiguous()


@lru_cache(maxsize=64)
def _powers(kernel: Kernel, device: torch.device) -> torch.Tensor:
    # g(t) t^p for t from -radius to radius, and a 0 behind them for all that does not count
    t = np.arange(-kernel.radius, kernel.radius + 1) / kernel.sigma
    weight = np.exp(-0.5 * t**2)
    table = weight / weight.sum() * t ** np.arange(3)[:, None]
    return torch.from_numpy(np.pad(table, ((0, 0), (0, 1)))).to(device)


def moments(masks: torch.Tensor, matrices: Sequence[torch.Tensor]) -> Moments:
    """All moments up to order 2 of `masks` float64 (B, *columns), given `matrices` (B, 3, rows, columns) per axis.

    -> float64 (B, *rows), by the power of t along each axis: (0, 0, 0) is the weighted count, (1, 0, 1) the sum of
    t_z t_x. A product takes the last axis off and puts its result first, so the axes end in their own order and no
    array is transposed in memory. float64 keeps variances near 0 exact, and is left alone by autocast and TF32.
    """
    found: Moments = {(): masks}
    for matrix in reversed(matrices):
        lower, found = found, {}
        for powers, volume in lower.items():
            orders = 3 - sum(powers)
            flat = volume.reshape(len(volume), -1, volume.shape[-1])
            product = torch.bmm(matrix[:, :orders].flatten(1, 2), flat.transpose(1, 2))
            split = product.view(len(volume), orders, matrix.shape[2], *volume.shape[1:-1])
            found |= {(power, *powers): split[:, power] for power in range(orders)}
    return found
