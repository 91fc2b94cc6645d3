"""Effects of staining, imaging and section cutting on the tissue's grey values and labels."""

import numpy as np
from scipy import ndimage

from emsuite.phantom.smooth_noise import smooth_noise

_MEAN = 130.0  # grey value that stays when the contrast changes, and at which the noise has its nominal deviation
# spread of one electron count over pixels along y and x: FIB-25's noise is not white
_SPREAD = np.array([0.11, 0.78, 0.11])


def stain(grey: np.ndarray, spacing: np.ndarray, unevenness: float, rng: np.random.Generator) -> np.ndarray:
    """Return `grey` with uneven staining: contrast and brightness drift over half a micrometre.

    With `unevenness` 1 the standard deviations are 5 % of the contrast and 4 grey values. `spacing` is nm per voxel.
    """
    contrast = 1 + unevenness * 0.05 * smooth_noise(grey.shape, 350 / spacing, rng)
    brightness = unevenness * 4 * smooth_noise(grey.shape, 500 / spacing, rng)
    return (grey - _MEAN) * contrast + _MEAN + brightness


def project(grey: np.ndarray, blur: np.ndarray, subvoxels: np.ndarray) -> np.ndarray:
    """Blur with a Gaussian of `blur` fine voxels per axis. Then average blocks of `subvoxels` fine voxels."""
    grey = ndimage.gaussian_filter(grey, blur, truncate=3)
    parts = [part for n, k in zip(grey.shape, subvoxels, strict=True) for part in (n // k, k)]
    return grey.reshape(parts).mean(axis=(1, 3, 5), dtype=np.float32)


def expose(grey: np.ndarray, noise: float, section_jitter: float, rng: np.random.Generator) -> np.ndarray:
    """Return the image (Z, Y, X) uint8 of `grey`, with brightness that differs between sections and with shot noise.

    Args:
        grey: (Z, Y, X) float32 grey values.
        noise: standard deviation of the shot noise at mid-grey, grey values.
        section_jitter: standard deviation of the sections' brightness, grey values.
        rng: draws both.
    """
    grey = grey + section_jitter * rng.standard_normal((len(grey), 1, 1), dtype=np.float32)
    counts = rng.standard_normal(grey.shape, dtype=np.float32)
    for axis in (1, 2):
        counts = ndimage.correlate1d(counts, _SPREAD / np.linalg.norm(_SPREAD), axis)
    # half of the variance comes from the detector and does not depend on the signal
    grey += noise * np.sqrt(0.5 + 0.5 * np.clip(grey / _MEAN, 0, 2)) * counts
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def choose_sections(fraction: float, sections: int, rng: np.random.Generator) -> np.ndarray:
    """Return the numbers of `round(fraction * sections)` random sections, in order."""
    return np.sort(rng.permutation(sections)[: round(fraction * sections)])


def draw_shifts(fraction: float, farthest: np.ndarray, sections: int, rng: np.random.Generator) -> np.ndarray:
    """Return the shift of each section, (sections, 2) int, voxels along y and x.

    A `fraction` of the sections is shifted, by up to `farthest` voxels in each direction. The others have 0.
    """
    shifts = np.zeros((sections, 2), dtype=int)
    for z in choose_sections(fraction, sections, rng):
        while not shifts[z].any():
            shifts[z] = rng.integers(-farthest, farthest, endpoint=True)
    return shifts


def shift_sections(volume: np.ndarray, shifts: np.ndarray, margin: np.ndarray) -> np.ndarray:
    """Move every section by its shift, and cut `margin` voxels off each side of y and x."""
    height, width = (n - 2 * m for n, m in zip(volume.shape[1:], margin, strict=True))
    begins = margin - shifts
    return np.stack([s[y : y + height, x : x + width] for s, (y, x) in zip(volume, begins, strict=True)])
