"""Smooth random fields, for textures that drift over a given length."""

import numpy as np
from scipy import ndimage

_TRUNCATE = 3  # deviations of the Gaussian


def smooth_noise(shape: tuple[int, ...], sigma: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White noise smoothed by a Gaussian of `sigma` voxels per axis: float32, mean 0, deviation about 1.

    Where sigma is wide it is made on a coarser grid and interpolated, so that its cost does not grow with sigma. Its
    deviation is 1 over many draws, not in each: a small volume may lie wholly in a bright or a dark region.
    """
    steps = np.maximum(1, np.floor(np.asarray(sigma) / 2)).astype(int)
    widths = np.asarray(sigma) / steps
    coarse = tuple(-(-n // int(step)) + 1 for n, step in zip(shape, steps, strict=True))
    noise = rng.standard_normal(coarse, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, widths, mode="wrap", truncate=_TRUNCATE)
    # the deviation that is left: the root of the sum of the kernel's squares
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
    place = np.arange(length) / step
    index = place.astype(int)
    weight = (place - index).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    return np.take(values, index, axis) * (1 - weight) + np.take(values, index + 1, axis) * weight
