"""Tubes on a voxel grid: the nearest of many tapering tubes at each voxel.

    phi(x) = distance from x to the tube's axis - the tube's radius at that point of the axis - roughness * noise(x)

A voxel belongs to the tube with the smallest phi. Without roughness, this is an additively weighted Voronoi diagram of
curves, whose cells are star-shaped around the axis. So each tube keeps its thickness, and neighbours share the gaps
between them.
"""

from dataclasses import dataclass

import numba
import numpy as np


@dataclass(frozen=True)
class Tubes:
    """N straight, tapering tubes."""

    starts: np.ndarray
    """(N, 3) nm, z y x."""
    ends: np.ndarray
    """(N, 3) nm, z y x."""
    radii: np.ndarray
    """(N, 2) nm, at the start and at the end."""
    values: np.ndarray
    """(N,) int32, above 0."""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def volume(self) -> float:
        """Sum of the tubes' volumes, cubic nm. Overlaps count twice."""
        lengths = np.linalg.norm(self.ends - self.starts, axis=1)
        return float((np.pi * self.radii.mean(1) ** 2 * lengths).sum())


@dataclass(frozen=True)
class TubeField:
    """The smallest phi at each voxel of a grid, and the tube that it belongs to."""

    phi: np.ndarray
    """(Z, Y, X) float32 nm, below 0 inside a tube."""
    owner: np.ndarray
    """(Z, Y, X) int32, the value of the tube, 0 for none."""
    origin: np.ndarray
    """(3,) nm, the centre of voxel (0, 0, 0)."""
    spacing: np.ndarray
    """(3,) nm per voxel."""

    @classmethod
    def empty(cls, shape: tuple[int, ...], origin: np.ndarray, spacing: np.ndarray, farthest: float) -> "TubeField":
        """Return a field without tubes. phi is `farthest` nm everywhere."""
        phi = np.full(shape, farthest, dtype=np.float32)
        return cls(phi, np.zeros(shape, np.int32), np.asarray(origin, np.float64), np.asarray(spacing, np.float64))

    def add(
        self, tubes: Tubes, reach: float, roughness: np.ndarray | None = None, noise: np.ndarray | None = None
    ) -> None:
        """Add `tubes` to the field, in place.

        Args:
            tubes: they change voxels up to `reach` from their surface.
            reach: nm.
            roughness: (N,) nm, how far the noise moves each tube's surface. Default: 0.
            noise: float32 in [-1, 1] with three axes. It repeats over the grid. Each tube's value shifts it, so that
                neighbours do not bend in the same way.
        """
        noise = np.zeros((1, 1, 1), np.float32) if noise is None else noise
        roughness = np.zeros(len(tubes)) if roughness is None else roughness
        radii, values = np.ascontiguousarray(tubes.radii), tubes.values
        grid = (self.phi, self.owner, self.origin, self.spacing)
        _claim(*grid, tubes.starts, tubes.ends, radii, values, float(reach), roughness, noise)


@numba.njit(cache=True)
def _claim(
    phi: np.ndarray,
    owner: np.ndarray,
    origin: np.ndarray,
    spacing: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    radii: np.ndarray,
    values: np.ndarray,
    reach: float,
    roughness: np.ndarray,
    noise: np.ndarray,
) -> None:  # pragma: no cover (compiled)
    low, high, period = np.zeros(3, np.int64), np.zeros(3, np.int64), noise.shape
    for i in range(len(values)):
        a, axis, rough = starts[i], ends[i] - starts[i], roughness[i]
        length2 = max((axis * axis).sum(), 1e-9)
        far = max(radii[i, 0], radii[i, 1]) + reach
        for k in range(3):
            low[k] = max(0, np.ceil((min(a[k], ends[i, k]) - far - origin[k]) / spacing[k]))
            high[k] = min(phi.shape[k], np.floor((max(a[k], ends[i, k]) + far - origin[k]) / spacing[k]) + 1)
        taper, shift = radii[i, 1] - radii[i, 0], values[i] * 37
        for z in range(low[0], high[0]):
            dz = origin[0] + z * spacing[0] - a[0]
            for y in range(low[1], high[1]):
                dy = origin[1] + y * spacing[1] - a[1]
                for x in range(low[2], high[2]):
                    dx = origin[2] + x * spacing[2] - a[2]
                    t = min(1.0, max(0.0, (dz * axis[0] + dy * axis[1] + dx * axis[2]) / length2))
                    ez, ey, ex = dz - t * axis[0], dy - t * axis[1], dx - t * axis[2]
                    value = np.sqrt(ez * ez + ey * ey + ex * ex) - radii[i, 0] - t * taper
                    if value > reach or value - rough >= phi[z, y, x]:
                        continue
                    if rough > 0:
                        voxel = ((z + shift) % period[0], (y + 3 * shift) % period[1], (x + 7 * shift) % period[2])
                        value -= rough * noise[voxel]
                    if value < phi[z, y, x]:
                        phi[z, y, x], owner[z, y, x] = value, values[i]
