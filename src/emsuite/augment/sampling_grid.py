"""Sampling coordinates in separable form: the position in a volume that each voxel of a box is read from.

    coordinate[c, z, y, x] = axis_terms[0][c, z] + axis_terms[1][c, y] + axis_terms[2][c, x]
                             + sum over j, k of section_vectors[z, c, j, k] weights_y[y, j] weights_x[k, x]

The axis terms hold the affine map and the section shifts. The double sum is a smooth displacement field in separable
form. The reader evaluates it one z-section at a time, so the dense field is never stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from emsuite.common.arrays import to_device


@dataclass(frozen=True)
class SamplingGrid:
    """The coordinates of a box of (Z, Y, X) voxels, in voxels of the array that is read. All tensors are float32.

    The axis c counts the components z, y, x of a coordinate.
    """

    axis_terms: tuple[torch.Tensor, ...]
    """The term of each axis of the box: (3, Z), (3, Y), (3, X)."""
    section_vectors: torch.Tensor
    """(Z, 3, J, K), the control vectors of each z-section."""
    weights_y: torch.Tensor
    """(Y, J)"""
    weights_x: torch.Tensor
    """(K, X)"""

    def dense(self) -> torch.Tensor:
        """Return all coordinates, (3, Z, Y, X)."""
        z, y, x = self.axis_terms
        coordinates = (z[:, :, None] + y[:, None])[..., None] + x[:, None, None]
        return coordinates.add_((self.weights_y @ self.section_vectors @ self.weights_x).transpose(0, 1))


def make_sampling_grid(
    axis_terms: Sequence[np.ndarray], vectors: np.ndarray, weights: Sequence[np.ndarray], device: torch.device
) -> SamplingGrid:
    """Return a sampling grid on `device`.

    Args:
        axis_terms: (3, Z), (3, Y), (3, X), the term of each axis of the box, voxels.
        vectors: (3, I, J, K) control vectors of the displacement, voxels.
        weights: (Z, I), (Y, J), (X, K), the weight of each control point at each voxel, axis by axis.
        device: the device that the volume is read on.
    """
    parts = [*axis_terms, vectors.swapaxes(0, 1), *weights[:2], weights[2].T]
    # one copy to the device for all parts
    flat = to_device(torch.from_numpy(np.concatenate([part.ravel() for part in parts], dtype=np.float32)), device)
    pieces = flat.split([part.size for part in parts])
    z, y, x, z_first, weights_z, *others = (piece.view(part.shape) for piece, part in zip(pieces, parts, strict=True))
    return SamplingGrid((z, y, x), torch.tensordot(weights_z, z_first, dims=1), *others)
