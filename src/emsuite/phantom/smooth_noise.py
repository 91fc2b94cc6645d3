"""Smooth random fields, for textures that change over a chosen length."""

import numpy as np
from scipy import ndimage

_TRUNCATE = 3  # standard deviations at which the Gaussian is cut off


def smooth_noise(shape: tuple[int, ...], sigma: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return white noise smoothed by a Gaussian: float32 of `shape`, mean 0, standard deviation about 1.

    For a wide Gaussian the noise is drawn on a coarser grid and interpolated, so the cost does not grow with sigma. The
    deviation is 1 over many draws, not in each: a small volume can lie completely in a bright or a dark region.

    Args:
        shape: voxels, z y x.
        sigma: (3,) voxels, the standard deviation of the Gaussian along each axis.
        rng: draws the noise.
    """
    steps = np.maximum(1, np.floor(np.asarray(sigma) / 2)).astype(int)
    widths = np.asarray(sigma) / steps
    coarse = tuple(-(-n // int(step)) + 1 for n, step in zip(shape, steps, strict=True))
    noise = rng.standard_normal(coarse, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, widths, mode="wrap", truncate=_TRUNCATE)
    # divide by the deviation after smoothing, the root of the sum of the kernel's squares
    noise *= np.float32(1 / np.prod([_kernel_norm(width, n) for width, n in zip(widths, coarse, strict=True)]))
    for axis, (n, step) in enumerate(zip(shape, steps, strict=True)):
        noise = _stretched(noise, axis, n, int(step))
    return noise


def _kernel_norm(width: float, period: int) -> float:
    impulse = np.zeros(period)
    impulse[0] = 1
    return float(np.linalg.norm(ndimage.gaussian_filter1d(impulse, width, mode="wrap", truncate=_TRUNCATE)))


def _stretched(values: np.ndarray, axis: int, length: int, step: int) -> np.ndarray:
    if step == 1:
        return np.take(values, np.arange(length), axis)
    position = np.arange(length) / step
    index = position.astype(int)
    weight = (position - index).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    return np.take(values, index, axis) * (1 - weight) + np.take(values, index + 1, axis) * weight
