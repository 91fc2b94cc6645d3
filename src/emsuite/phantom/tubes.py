"""Tubes on a voxel grid: which of many tapering tubes reaches each voxel first.

    phi(x) = distance from x to the tube's axis - the tube's radius there - roughness * noise(x)

A voxel belongs to the tube of smallest phi: without roughness an additively weighted Voronoi diagram of curves, whose
cells are star-shaped around the axis. So each tube keeps its thickness, and gaps between tubes are shared out.
"""

from dataclasses import dataclass

import numba
import numpy as np


@dataclass(frozen=True)
class Tubes:
    """N straight, tapering tubes: `starts`, `ends` (N, 3) nm z y x, `radii` (N, 2) nm, `values` (N,) int32 > 0."""

    starts: np.ndarray
    ends: np.ndarray
    radii: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    @property
    def volume(self) -> float:
        """Cubic nm, overlaps counted twice."""
        lengths = np.linalg.norm(self.ends - self.starts, axis=1)
        return float((np.pi * self.radii.mean(1) ** 2 * lengths).sum())


@dataclass(frozen=True)
class TubeField:
    """What tubes leave on a grid (Z, Y, X): `phi` float32 nm, below 0 inside a tube, and `owner` int32, 0 is none.

    Voxel (0, 0, 0) has its centre at `origin` nm and is `spacing` nm wide.
    """

    phi: np.ndarray
    owner: np.ndarray
    origin: np.ndarray
    spacing: np.ndarray

    @classmethod
    def empty(cls, shape: tuple[int, ...], origin: np.ndarray, spacing: np.ndarray, farthest: float) -> "TubeField":
        """A field without tubes: `farthest` nm everywhere."""
        phi = np.full(shape, farthest, dtype=np.float32)
        return cls(phi, np.zeros(shape, np.int32), np.asarray(origin, np.float64), np.asarray(spacing, np.float64))

    def add(
        self, tubes: Tubes, reach: float, roughness: np.ndarray | None = None, noise: np.ndarray | None = None
    ) -> None:
        """Let `tubes` claim the voxels up to `reach` nm from their surface, in place.

        `roughness` (N,) nm scales `noise` (float32, three axes, [-1, 1]), which repeats over the grid; each tube's
        value shifts it, so that neighbours do not bend alike.
        """
        still = np.zeros((1, 1, 1), np.float32) if noise is None else noise
        rough = np.zeros(len(tubes)) if roughness is None else roughness
        radii, values = np.ascontiguousarray(tubes.radii), tubes.values
        grid = (self.phi, self.owner, self.origin, self.spacing)
        _claim(*grid, tubes.starts, tubes.ends, radii, values, float(reach), rough, still)


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
                        place = ((z + shift) % period[0], (y + 3 * shift) % period[1], (x + 7 * shift) % period[2])
                        value -= rough * noise[place]
                    if value < phi[z, y, x]:
                        phi[z, y, x], owner[z, y, x] = value, values[i]
