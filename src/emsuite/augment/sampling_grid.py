"""Where the voxels of a box are read from in a volume.

    place[c, z, y, x] = axes[0][c, z] + axes[1][c, y] + axes[2][c, x]
                        + sum over j, k of planes[z, c, j, k] weights_y[y, j] weights_x[k, x]

What each axis adds holds an affine map and sections that slid. The sum over j and k is a smooth displacement, of which
the last two products are left to whoever reads: no place is kept for longer than it takes to read a section there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from emsuite.common.arrays import to_device


@dataclass(frozen=True)
class SamplingGrid:
    """Of the voxels of a box (Z, Y, X), in voxels of what is read; c is z, y, x; all tensors are float32."""

    axes: tuple[torch.Tensor, ...]
    """What each axis adds: (3, Z), (3, Y), (3, X)."""
    planes: torch.Tensor
    """(Z, 3, J, K)"""
    weights_y: torch.Tensor
    """(Y, J)"""
    weights_x: torch.Tensor
    """(K, X)"""

    def dense(self) -> torch.Tensor:
        """(3, Z, Y, X)"""
        z, y, x = self.axes
        found = (z[:, :, None] + y[:, None])[..., None] + x[:, None, None]
        return found.add_((self.weights_y @ self.planes @ self.weights_x).transpose(0, 1))


def sampling_grid(
    axes: Sequence[np.ndarray], vectors: np.ndarray, weights: Sequence[np.ndarray], device: torch.device
) -> SamplingGrid:
    """Places on `device` from what each axis adds (3, n), and from control vectors (3, I, J, K) that each axis'
    `weights`, (Z, I), (Y, J) and (X, K), spread."""
    parts = [*axes, vectors.swapaxes(0, 1), *weights[:2], weights[2].T]
    # one copy to the device for all
    flat = to_device(torch.from_numpy(np.concatenate([part.ravel() for part in parts], dtype=np.float32)), device)
    pieces = flat.split([part.size for part in parts])
    z, y, x, moved, along_z, *others = (piece.view(part.shape) for piece, part in zip(pieces, parts, strict=True))
    return SamplingGrid((z, y, x), torch.tensordot(along_z, moved, dims=1), *others)
