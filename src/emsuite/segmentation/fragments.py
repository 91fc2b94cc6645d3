"""Fragments (supervoxels) of a volume of affinities, the paper's way.

    affinities -> inside or boundary -> distance to the boundary -> seeds at its maxima -> watershed -> fragments

Seeds may also be the pieces of a mutex watershed, for affinities to far voxels.

The flood covers the boundary too: voxels without a fragment would count as one big segment in every score. There, where
all distances are 0, it climbs from high to low affinity instead of at random.

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
    """Fragments of affinities (C, Z, Y, X; uint8, 0 to 255 stands for 0 to 1) as (Z, Y, X) uint32; 0 is background.

    `offsets` in voxels, one per channel, the first three as NEAR; others are for mutex seeds alone. Background is where
    `mask` (Z, Y, X) is 0, and fragments whose mean affinity is 0 or below `filter_fragments`. Only the part at `inner`
    is returned. Ids are whole from 1 up, each fragment is connected over voxel faces.
    """
    used = [c for c, offset in enumerate(offsets) if not (options.in_sections and offset[0])]
    near = [c for c in used if c < 3]
    strength = (affs[:3] if near == [0, 1, 2] else affs[near]).sum(axis=0, dtype=np.uint16)  # C * 255 where all are 1
    pieces = None
    if options.seeds == "mutex":
        pieces = mutex_pieces(affs[used], [offsets[c] for c in used], options.bias, options.debris)
    if options.in_sections:
        fragments, found = np.zeros(strength.shape, np.int32), 0
        for z in range(strength.shape[0]):
            section = np.s_[z : z + 1]
            labels = _watershed(strength[section], None if pieces is None else pieces[section], len(near), options)
            fragments[section] = labels if options.seeds == "mutex" else labels + found
            found += int(labels.max(initial=0))
    else:
        fragments = _watershed(strength, pieces, len(near), options)
    if mask is not None:
        fragments[mask == 0] = 0
    _drop(fragments, strength, int(fragments.max(initial=0)), 255 * len(near), options.filter_fragments)
    if options.epsilon > 0:
        fragments = merge_regions(affs[:3], fragments, _EPSILON_FUNCTION, options.epsilon)
    return split_into_components(fragments[inner])


def split_into_components(labels: np.ndarray) -> np.ndarray:
    """Number the parts of each label that touch over voxel faces from 1 up, in the order of their first voxels."""
    return cc3d.connected_components(np.ascontiguousarray(labels), connectivity=6, out_dtype=np.uint32)


def _watershed(strength: np.ndarray, seeds: np.ndarray | None, channels: int, options: FragmentSettings) -> np.ndarray:
    """Flood a volume, or one section, from `seeds`; without any, from the maxima of the distance to the boundary."""
    # squared distances in voxels are whole numbers: they order voxels as distances do, exactly
    inside = strength > 0.5 * 255 * channels
    squared = squared_distance(inside) if seeds is None or options.flood == "distance" else np.empty(0, np.int32)
    if inside.all():  # no boundary anywhere
        squared[:] = 0
    if seeds is None:
        width = options.min_seed_distance
        maxima = local_maxima(squared, (1 if options.in_sections else width, width, width))
        seeds = cc3d.connected_components(maxima, connectivity=6)
    return seeded_watershed(HEIGHTS[options.flood](squared, strength, channels), seeds)


def _distance_height(squared: np.ndarray, strength: np.ndarray, channels: int) -> np.ndarray:
    """Lowest far inside, highest where the boundary is surest."""
    height = (squared.max(initial=0) - squared).astype(np.uint32)
    boundary = strength <= 0.5 * 255 * channels
    height[boundary] += np.uint32(128 * channels) - strength[boundary]
    return height


def _affinity_height(squared: np.ndarray, strength: np.ndarray, channels: int) -> np.ndarray:
    """Lowest where the affinities are highest."""
    return np.uint16(255 * channels) - strength


HEIGHTS: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "distance": _distance_height,
    "affinity": _affinity_height,
}
"""What the watershed can flood, made from the squared distance to the boundary and the summed affinity of a voxel."""


@numba.njit(cache=True, nogil=True)
def _drop(fragments: np.ndarray, strength: np.ndarray, number: int, full: int, lowest: float) -> None:
    """Set the voxels of fragments whose mean affinity is 0 or below `lowest` to 0; `full` is the strength of 1."""
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
