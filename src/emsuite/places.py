"""Where the voxels of a box are read from in a volume.

    place[c, z, y, x] = axes[0][c, z] + axes[1][c, y] + axes[2][c, x] + sum over k of rows[z, c, k, y] weights[k, x]

What each axis adds holds an affine map and sections that slid; the sum over k is a smooth displacement, of which the
last product is left to whoever reads, so that a place need not be stored for longer than it takes to read there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from emsuite.tensors import sent


@dataclass(frozen=True)
class Places:
    """Of the voxels of a box (Z, Y, X), in voxels of what is read; c is z, y, x; all tensors are float32."""

    axes: tuple[torch.Tensor, ...]
    """What each axis adds: (3, Z), (3, Y), (3, X)."""
    rows: torch.Tensor
    """(Z, 3, K, Y)"""
    weights: torch.Tensor
    """(K, X)"""

    def dense(self) -> torch.Tensor:
        """(3, Z, Y, X)"""
        z, y, x = self.axes
        found = (z[:, :, None] + y[:, None])[..., None] + x[:, None, None]
        return found.add_((self.rows.mT @ self.weights).transpose(0, 1))


def places_of(
    axes: Sequence[np.ndarray], vectors: np.ndarray, weights: Sequence[np.ndarray], device: torch.device
) -> Places:
    """Places on `device` from what each axis adds (3, n), and from control vectors (3, Kz, Ky, Kx) that each axis'
    `weights` (n, K) spread."""
    parts = [*axes, vectors, *weights]
    # one copy to the device for all
    flat = sent(torch.from_numpy(np.concatenate([part.ravel() for part in parts], dtype=np.float32)), device)
    pieces = flat.split([part.size for part in parts])
    z, y, x, moved, *spread = (piece.view(part.shape) for piece, part in zip(pieces, parts, strict=True))
    # two plain matrix products: along z, then along y
    along_z = spread[0] @ moved.permute(1, 0, 3, 2).flatten(1)
    rows = along_z.view(-1, moved.shape[2]) @ spread[1].T
    return Places((z, y, x), rows.view(z.shape[1], 3, -1, y.shape[1]), spread[2].T.contiguous())
