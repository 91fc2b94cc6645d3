"""What the microscope and the section cutting do to the tissue's grey values and labels."""

import numpy as np
from scipy import ndimage

from emsuite.phantom.smooth_noise import smooth_noise

_MEAN = 130.0  # grey value that contrast turns around, and at which the noise has its nominal deviation
_SPREAD = np.array([0.11, 0.78, 0.11])  # of one electron count over pixels along y and x: FIB-25's noise is not white


def stain(grey: np.ndarray, spacing: np.ndarray, unevenness: float, rng: np.random.Generator) -> np.ndarray:
    """Uneven staining: contrast and brightness drift over half a micrometre.

    `unevenness` 1 is a deviation of 5 % of the contrast and of 4 grey values.
    """
    contrast = 1 + unevenness * 0.05 * smooth_noise(grey.shape, 350 / spacing, rng)
    brightness = unevenness * 4 * smooth_noise(grey.shape, 500 / spacing, rng)
    return (grey - _MEAN) * contrast + _MEAN + brightness


def project(grey: np.ndarray, blur: np.ndarray, subvoxels: np.ndarray) -> np.ndarray:
    """Blur by a Gaussian of `blur` fine voxels, then average `subvoxels` fine voxels into each voxel, per axis."""
    grey = ndimage.gaussian_filter(grey, blur, truncate=3)
    parts = [part for n, k in zip(grey.shape, subvoxels, strict=True) for part in (n // k, k)]
    return grey.reshape(parts).mean(axis=(1, 3, 5), dtype=np.float32)


def expose(grey: np.ndarray, noise: float, section_jitter: float, rng: np.random.Generator) -> np.ndarray:
    """Each section's own brightness (deviation `section_jitter`) and shot noise (`noise` at mid-grey), as uint8."""
    grey = grey + section_jitter * rng.standard_normal((len(grey), 1, 1), dtype=np.float32)
    counts = rng.standard_normal(grey.shape, dtype=np.float32)
    for axis in (1, 2):
        counts = ndimage.correlate1d(counts, _SPREAD / np.linalg.norm(_SPREAD), axis)
    # half of it is the detector's own and does not depend on the signal
    grey += noise * np.sqrt(0.5 + 0.5 * np.clip(grey / _MEAN, 0, 2)) * counts
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def choose_sections(fraction: float, sections: int, rng: np.random.Generator) -> np.ndarray:
    """`round(fraction * sections)` of the sections, in order."""
    return np.sort(rng.permutation(sections)[: round(fraction * sections)])


def draw_shifts(fraction: float, farthest: np.ndarray, sections: int, rng: np.random.Generator) -> np.ndarray:
    """(sections, 2) int voxels along y, x: up to `farthest` each way in a fraction of the sections, 0 in the others."""
    shifts = np.zeros((sections, 2), dtype=int)
    for z in choose_sections(fraction, sections, rng):
        while not shifts[z].any():
            shifts[z] = rng.integers(-farthest, farthest, endpoint=True)
    return shifts


def shift_sections(volume: np.ndarray, shifts: np.ndarray, margin: np.ndarray) -> np.ndarray:
    """Cut `margin` voxels off each side of y and x, every section moved by its shift."""
    height, width = (n - 2 * m for n, m in zip(volume.shape[1:], margin, strict=True))
    first = margin - shifts
    return np.stack([s[y : y + height, x : x + width] for s, (y, x) in zip(volume, first, strict=True)])
