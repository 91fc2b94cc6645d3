"""What preprocessing does to the voxels of a volume (Z, Y, X): flat field, resize, clip, CLAHE."""

from collections.abc import Sequence

import numpy as np
from skimage.exposure import equalize_adapthist
from skimage.transform import resize

from emsuite.plates.flat_field import empty_sections

Factors = tuple[float, float, float]


def factors_of(scale: float | Sequence[float] | None) -> Factors:
    """Return the factors along z, y, x; one number is that of y and x, None changes nothing."""
    if scale is None:
        return 1.0, 1.0, 1.0
    if isinstance(scale, int | float):
        return 1.0, float(scale), float(scale)
    z, y, x = scale
    return float(z), float(y), float(x)


def resized_shape(shape: Sequence[int], factors: Factors) -> tuple[int, int, int]:
    """Return the voxels along z, y, x of a volume after `resized`: rounded, at least 1."""
    z, y, x = (max(1, round(length * factor)) for length, factor in zip(shape, factors, strict=True))
    return z, y, x


def resized(volume: np.ndarray, factors: Factors) -> np.ndarray:
    """Return a volume with another number of voxels, float32.

    Each slice is interpolated bilinearly if the factor of z is 1, else the volume by cubic splines. Voxels that become
    fewer are blurred before (scikit-image's `resize`). Slices that cover an empty one, see `resized_empty`, are empty
    afterwards: they have its value throughout.

    Args:
        volume: (Z, Y, X).
        factors: along z, y, x.
    """
    shape = resized_shape(volume.shape, factors)
    voxels, dark = np.asarray(volume, np.float32), empty_sections(volume)
    if shape == volume.shape:
        return voxels
    smaller = any(new < old for new, old in zip(shape, volume.shape, strict=True))
    options = {"mode": "reflect", "anti_aliasing": smaller, "preserve_range": True}
    if factors[0] == 1:
        sections = [resize(section, shape[1:], order=1, **options) for section in voxels]
        result = np.stack(sections).astype(np.float32)
    else:
        result = np.asarray(resize(voxels, shape, order=3, **options), np.float32)
    for z, covered in enumerate(_covered(volume.shape[0], shape[0])):
        if dark[covered].any():
            result[z] = voxels[covered][dark[covered]][0, 0, 0]
    return result


def resized_empty(empty: np.ndarray, slices: int) -> np.ndarray:
    """Return which slices of a resized volume are empty: those that cover an empty one, even a part of it.

    Args:
        empty: (Z,) bool, of the volume before.
        slices: of the volume afterwards.
    """
    return np.array([empty[covered].any() for covered in _covered(len(empty), slices)], bool)


def _covered(old: int, new: int) -> list[slice]:
    """Return the slices of before that each slice of afterwards lies in."""
    return [slice(z * old // new, -(-(z + 1) * old // new)) for z in range(new)]


def resized_mask(mask: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Return a mask (Z, Y, X) of another shape, by the nearest voxel, as bool."""
    index = [
        np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(int)
        for new, old in zip(shape, mask.shape, strict=True)
    ]
    return np.asarray(mask[np.ix_(*index)], bool)


def flattened(volume: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Return a volume (Z, Y, X) divided by the flat field (Y, X), float32; empty sections stay as they are."""
    light = np.where(empty_sections(volume)[:, np.newaxis, np.newaxis], 1.0, field)
    return np.asarray(volume / light, np.float32)


def clipped(volume: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return a volume whose values below `low` and above `high` are those limits, float32."""
    return np.clip(volume.astype(np.float32), np.float32(low), np.float32(high))


def equalized(volume: np.ndarray, kernel_size: int | None, clip_limit: float) -> np.ndarray:
    """Return each section of a volume (Z, Y, X) equalized by CLAHE, float32 in 0 to 1; empty sections become 0."""
    result = np.zeros(volume.shape, np.float32)
    for z in np.flatnonzero(~empty_sections(volume)):
        section = volume[z].astype(np.float64)
        unit = (section - section.min()) / (section.max() - section.min())
        result[z] = equalize_adapthist(unit, kernel_size=kernel_size, clip_limit=clip_limit)
    return result
