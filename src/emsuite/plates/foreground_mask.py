"""Masks of the foreground, and weights that are high between neighbours.

    image -> threshold (Otsu, or Rosin's for one peak) -> opening -> holes filled, or erosion -> mask
    masks of several channels are OR-ed
    mask -> components -> weights: of the classes, and of the distances to the two nearest components

The steps are microDL's (czbiohub): Otsu 1979 with 512 bins; Rosin 2001 on 256 bins up to the 99.5 percentile; border
weights after Ronneberger et al. 2015.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import ball, disk

from emsuite.plates.flat_field import empty_sections

Method = Literal["otsu", "unimodal"]
_OTSU_BINS, _ROSIN_BINS, _ROSIN_PERCENT = 512, 256, 99.5
_FARTHEST = 8  # sigmas: farther components change a weight by less than 1e-13


def rosin_threshold(values: np.ndarray) -> float:
    """Return Rosin's threshold of values with one peak: the bin farthest from the line from the peak to the last bin.

    Raises:
        ValueError: all values are equal.
    """
    top = float(np.percentile(values, _ROSIN_PERCENT))
    low = float(values.min())
    if not top > low:
        top = float(values.max())
    if not top > low:
        raise ValueError("all values are equal")
    counts, edges = np.histogram(values, bins=_ROSIN_BINS, range=(low, top))
    peak, last = int(counts.argmax()), int(np.flatnonzero(counts)[-1])
    bins = np.arange(peak, last + 1)
    rise, run = float(counts[last] - counts[peak]), float(last - peak)
    # the distance from the line times its length, which is the same for all bins
    distance = np.abs(rise * (bins - peak) - run * (counts[bins] - counts[peak]))
    threshold = peak + int(distance.argmax())
    return float((edges[threshold] + edges[threshold + 1]) / 2)


def threshold_of(values: np.ndarray, method: Method) -> float:
    """Return the threshold of an image of any shape; raise ValueError if all of its values are equal."""
    if values.min() == values.max():
        raise ValueError("all values are equal")
    return rosin_threshold(values) if method == "unimodal" else float(threshold_otsu(values, nbins=_OTSU_BINS))


def foreground(image: np.ndarray, method: Method, radius: int) -> np.ndarray:
    """Return the foreground of an image, as bool.

    Args:
        image: (Y, X) or (Z, Y, X), as a whole; a constant one has no foreground.
        method: otsu for two peaks, its holes are filled; unimodal for one, its edge is eroded.
        radius: of the disk or ball of the opening, in pixels; 0: none.
    """
    if image.min() == image.max():
        return np.zeros(image.shape, bool)
    mask = image > threshold_of(image, method)
    element = disk(radius) if image.ndim == 2 else ball(radius)
    if radius:
        mask = ndimage.binary_opening(mask, element)
    if method == "otsu":
        return np.asarray(ndimage.binary_fill_holes(mask))
    return np.asarray(ndimage.binary_erosion(mask, element) if radius else mask)


def foreground_of_channels(volumes: Sequence[np.ndarray], method: Method, radius: int, whole: bool) -> np.ndarray:
    """Return the foreground of any of several channels.

    Args:
        volumes: one (Z, Y, X) per channel.
        method: see `foreground`.
        radius: see `foreground`.
        whole: whether a volume has one threshold, or each of its sections its own.

    Returns:
        (Z, Y, X) bool; False in sections that are empty in all channels.
    """
    mask = np.zeros(volumes[0].shape, bool)
    for volume in volumes:
        lit = ~empty_sections(volume)
        if whole and lit.any():
            mask[lit] |= foreground(volume[lit], method, radius)
        elif lit.any():
            mask[lit] |= np.stack([foreground(section, method, radius) for section in volume[lit]])
    return mask


def border_weights(labels: np.ndarray, w0: float = 10.0, sigma: float = 5.0) -> np.ndarray:
    """Return the weights of the pixels of an image: high for the rarer class, and between near components.

    weight = w_class + w0 exp(-(d1 + d2)^2 / (2 sigma^2)) on background, w_class alone on foreground

    Args:
        labels: (Y, X): 0 is background; a mask (bool) is split into components by 4 neighbours.
        w0: weight of the border of two components that touch.
        sigma: pixels by which it falls.

    Returns:
        (Y, X) float32. w_class is 1 over the pixels of the class (background, foreground), over the larger of the two.
        With fewer than two components the border term is 0.
    """
    components = ndimage.label(labels)[0] if labels.dtype == bool else labels
    inside = components > 0
    counts = np.array([np.count_nonzero(~inside), np.count_nonzero(inside)], np.float64)
    rarity = np.divide(1.0, counts, out=np.zeros(2), where=counts > 0)
    weights = (rarity / rarity.max())[inside.astype(int)]
    nearest, second = _two_distances(components, int(np.ceil(_FARTHEST * sigma)))
    near = ~inside & np.isfinite(second)
    weights[near] += w0 * np.exp(-((nearest[near] + second[near]) ** 2) / (2 * sigma**2))
    return np.asarray(weights, np.float32)


def _two_distances(components: np.ndarray, farthest: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances of each pixel to the nearest two components; infinite where they are farther away."""
    nearest = np.full(components.shape, np.inf)
    second = np.full(components.shape, np.inf)
    for number, box in enumerate(ndimage.find_objects(components), 1):
        if box is None:
            continue
        around = tuple(slice(max(0, part.start - farthest), part.stop + farthest) for part in box)
        distance = ndimage.distance_transform_edt(components[around] != number)
        before = nearest[around]
        second[around] = np.minimum(second[around], np.maximum(before, distance))
        nearest[around] = np.minimum(before, distance)
    return nearest, second
