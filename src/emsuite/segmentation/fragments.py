"""Fragments (supervoxels) of a volume of affinities, by a seeded watershed.

    affinities -> inside or boundary -> distance to the boundary -> seeds at its maxima -> watershed -> fragments

The pieces of a mutex watershed can serve as seeds instead; they also use affinities to distant voxels.

The watershed floods the boundary too, as in the paper: to the variation of information, voxels without a fragment would
be one large segment. On the boundary all distances are 0, so there a flood by distance climbs from high to low affinity
instead of at random.

Source: Sheridan et al., "Local shape descriptors for neuron segmentation", 2022; Funke et al., "Large scale image
segmentation with structured loss based deep learning for connectome reconstruction", 2018.
"""

from collections.abc import Callable, Sequence

import cc3d
import numba
import numpy as np

from emsuite.segmentation.distance_transform import local_maxima, squared_distance
from emsuite.segmentation.merge_hierarchy import merge_regions
from emsuite.segmentation.mutex_watershed import mutex_pieces
from emsuite.segmentation.region_graph import NEAR
from emsuite.segmentation.settings import FragmentSettings
from emsuite.segmentation.watershed import seeded_watershed

_EPSILON_FUNCTION = "hist_quant_25"


def find_fragments(
    affs: np.ndarray,
    options: FragmentSettings,
    mask: np.ndarray | None = None,
    inner: tuple[slice, ...] = (slice(None),) * 3,
    offsets: Sequence[Sequence[int]] = NEAR,
) -> np.ndarray:
    """Return the fragments of a volume of affinities.

    Args:
        affs: (C, Z, Y, X) uint8, 0 to 255 stands for 0 to 1.
        options: How fragments are made. Fragments with a mean affinity of 0, or below `options.filter_fragments`,
            become background.
        mask: (Z, Y, X); voxels where it is 0 become background. Their affinities count as 0 before, so that fragments
            are shaped as if a boundary lay at the edge of the mask, as in the paper.
        inner: The part of the volume to return; the rest is context.
        offsets: The offset of each channel in voxels. The first three are NEAR; only mutex seeds use the others.

    Returns:
        (Z, Y, X) uint32. Ids are 1, 2, 3 ... without gaps; 0 is background. Each fragment is connected over voxel
        faces.
    """
    if mask is not None:
        affs = affs * (mask != 0)
    used = [c for c, offset in enumerate(offsets) if not (options.in_sections and offset[0])]
    near = [c for c in used if c < 3]
    # where all affinities of a voxel are 1, its strength is 255 times the number of channels
    strength = (affs[:3] if near == [0, 1, 2] else affs[near]).sum(axis=0, dtype=np.uint16)
    pieces = None
    if options.seeds == "mutex":
        pieces = mutex_pieces(affs[used], [offsets[c] for c in used], options.bias, options.debris)
    if options.in_sections:
        fragments, highest_id = np.zeros(strength.shape, np.int32), 0
        for z in range(strength.shape[0]):
            section = np.s_[z : z + 1]
            labels = _watershed(strength[section], None if pieces is None else pieces[section], len(near), options)
            fragments[section] = labels if options.seeds == "mutex" else labels + highest_id
            highest_id += int(labels.max(initial=0))
    else:
        fragments = _watershed(strength, pieces, len(near), options)
    if mask is not None:
        fragments[mask == 0] = 0
    _drop_weak_fragments(fragments, strength, int(fragments.max(initial=0)), 255 * len(near), options.filter_fragments)
    if options.epsilon > 0:
        fragments = merge_regions(affs[:3], fragments, _EPSILON_FUNCTION, options.epsilon)
    return split_into_components(fragments[inner])


def split_into_components(labels: np.ndarray) -> np.ndarray:
    """Give each face-connected part of a label its own id, from 1 up in the order of the first voxels."""
    return cc3d.connected_components(np.ascontiguousarray(labels), connectivity=6, out_dtype=np.uint32)


def _watershed(strength: np.ndarray, seeds: np.ndarray | None, channels: int, options: FragmentSettings) -> np.ndarray:
    """Flood a volume, or one section, from `seeds`, or else from the maxima of the distance to the boundary."""
    # squared distances are integers and order voxels exactly as distances do
    inside = strength > 0.5 * 255 * channels
    squared = squared_distance(inside) if seeds is None or options.flood == "distance" else np.empty(0, np.int32)
    if inside.all():  # no boundary: all voxels are equally far
        squared[:] = 0
    if seeds is None:
        width = options.min_seed_distance
        maxima = local_maxima(squared, (1 if options.in_sections else width, width, width))
        seeds = cc3d.connected_components(maxima, connectivity=6)
    return seeded_watershed(HEIGHTS[options.flood](squared, strength, channels), seeds)


def _distance_height(squared: np.ndarray, strength: np.ndarray, channels: int) -> np.ndarray:
    """Return heights that are lowest far inside, and highest on the boundary where affinities are lowest."""
    height = (squared.max(initial=0) - squared).astype(np.uint32)
    boundary = strength <= 0.5 * 255 * channels
    height[boundary] += np.uint32(128 * channels) - strength[boundary]
    return height


def _affinity_height(squared: np.ndarray, strength: np.ndarray, channels: int) -> np.ndarray:
    """Return heights that are lowest where the affinities are highest."""
    return np.uint16(255 * channels) - strength


HEIGHTS: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "distance": _distance_height,
    "affinity": _affinity_height,
}
"""The heights that the watershed can flood, by the name of the setting `flood`.

Each function takes the squared distance to the boundary, the sum of a voxel's affinities, and the number of channels in
that sum."""


@numba.njit(cache=True, nogil=True)
def _drop_weak_fragments(fragments: np.ndarray, strength: np.ndarray, number: int, full: int, lowest: float) -> None:
    """Set fragments whose mean affinity is 0 or below `lowest` to 0; `full` is the strength that stands for 1."""
    total, size = np.zeros(number + 1, np.int64), np.zeros(number + 1, np.int64)
    for z in range(fragments.shape[0]):
        for y in range(fragments.shape[1]):
            for x in range(fragments.shape[2]):
                total[fragments[z, y, x]] += strength[z, y, x]
                size[fragments[z, y, x]] += 1
    dropped = np.zeros(number + 1, np.bool_)
    for label in range(1, number + 1):
        dropped[label] = total[label] == 0 or total[label] / size[label] / full < lowest
    if dropped.any():
        for z in range(fragments.shape[0]):
            for y in range(fragments.shape[1]):
                for x in range(fragments.shape[2]):
                    if dropped[fragments[z, y, x]]:
                        fragments[z, y, x] = 0
