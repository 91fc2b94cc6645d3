"""The samples that local shape descriptors are computed on, and the crops of an array that they need.

Coordinates count samples where they do not say voxels.
"""

from dataclasses import dataclass

from emsuite.targets.gaussian_moments import Kernel

VARIANCE_FLOOR = 1e-3
"""The least variance, nm^2."""

Box = tuple[slice, ...]


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
