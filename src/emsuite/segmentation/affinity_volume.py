"""Affinities as every segmentation stage reads them: uint8, with the affinities to adjacent voxels first.

Sections with artefacts can be replaced by others, here section 79 by 78:

    stored      77  78  79  80          within a section    all affinities are those of the section that takes the place
    read        77  78  78  80          between 79 and 78   1, as both are the same section now
    in nm of the world / thickness      between 80 and 79   as stored: what the network told of the bad section
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.geometry import Roi
from emsuite.io.values import check_not_empty, in_unit_range
from emsuite.io.volume import Volume
from emsuite.segmentation.region_graph import NEAR
from emsuite.segmentation.settings import parse_sections

_MOST_CHANNELS = 24  # without a neighborhood; networks predict 3 to 12, and volumes are larger


@dataclass(frozen=True)
class AffinityVolume:
    """A volume of affinities (C, Z, Y, X) with the order in which to read its channels.

    Attributes:
        volume: The stored affinities, uint8, or floats in [0, 1].
        channels: Indices of the stored channels, in the order in which `read_all` returns them. The first three are
            those of NEAR; the others follow in their stored order.
        offsets: For each of `channels`, the offset (z, y, x) in voxels to the voxel that the affinity refers to.
        replaced: For each bad section, by its index in the volume, the index of the one that takes its place.
        dropped: The sections that none takes the place of: they get no fragments.
    """

    volume: Volume
    channels: tuple[int, ...]
    offsets: tuple[tuple[int, ...], ...]
    replaced: Mapping[int, int] = field(default_factory=dict)
    dropped: frozenset[int] = frozenset()

    def read(self, roi: Roi) -> np.ndarray:
        """Return the affinities to adjacent voxels in `roi` (nm) as (3, Z, Y, X) uint8; 0 to 255 stands for 0 to 1.

        Raises:
            BadInput: If stored floats are not in [0, 1].
        """
        return self._read(roi, 3)

    def read_all(self, roi: Roi) -> np.ndarray:
        """Return all affinities in `roi` as (C, Z, Y, X) uint8, one channel per offset; otherwise like `read`."""
        return self._read(roi, len(self.channels))

    def keeps(self, roi: Roi) -> np.ndarray | None:
        """Return for each section of `roi` whether it gets fragments, bool (Z,); None if all do."""
        first, number = self._sections(roi)
        kept = np.array([z not in self.dropped for z in range(first, first + number)], bool)
        return None if kept.all() else kept

    def _sections(self, roi: Roi) -> tuple[int, int]:
        """Return the index of the first section of `roi`, and how many there are."""
        thickness = self.volume.voxel_size[0]
        return int((roi.begin[0] - self.volume.offset[0]) / thickness), int(roi.shape[0] / thickness)

    def _read(self, roi: Roi, number: int) -> np.ndarray:
        voxels = self._stored(roi, number)
        if not self.replaced:
            return voxels
        voxels, (first, sections) = np.array(voxels), self._sections(roi)
        for z in range(first, first + sections):
            source = self.replaced.get(z, z)
            if source != z:
                shift = (source - first) * self.volume.voxel_size[0]
                section = Roi((roi.begin[0] + shift, *roi.begin[1:]), (self.volume.voxel_size[0], *roi.shape[1:]))
                voxels[:, z - first] = self._stored(section, number)[:, 0]
            for channel, offset in enumerate(self.offsets[:number]):
                partner = z + offset[0]
                if partner != z and self.replaced.get(partner, partner) == source:
                    voxels[channel, z - first] = 255
        return voxels

    def _stored(self, roi: Roi, number: int) -> np.ndarray:
        voxels = self.volume.read(roi)
        if self.channels[:number] != tuple(range(len(voxels))):
            voxels = voxels[list(self.channels[:number])]
        if voxels.dtype == np.uint8:
            return voxels
        values = in_unit_range(voxels)
        if values is None:
            raise BadInput(
                f"{self.volume.path}: holds {voxels.min():.6g} to {voxels.max():.6g} (or NaN) in {roi}, "
                "expected affinities in [0, 1], or uint8"
            )
        return np.rint(values * 255.0).astype(np.uint8)


def affinity_volume(volume: Volume, sections: str | None = None) -> AffinityVolume:
    """Check that `volume` holds affinities, and find out what its channels mean.

    The array attribute `neighborhood` lists the offset of each channel in voxels. Without it, the first three channels
    are taken as NEAR, as in Sheridan et al. (2022).

    Args:
        volume: The stored affinities.
        sections: The setting `replace_sections`. Section n lies from n to n + 1 times the thickness of a section, in nm
            of the world, whatever the offset of the volume. Bad sections that the volume does not hold do not count.

    Raises:
        BadInput: If `volume` is no array of affinities, or has no affinities to the adjacent voxels, or does not hold a
            section that takes the place of a bad one.
    """
    channels, offsets = _meaning(volume)
    return AffinityVolume(volume, channels, offsets, *_replacements(volume, sections))


def _replacements(volume: Volume, sections: str | None) -> tuple[dict[int, int], frozenset[int]]:
    first = math.floor(volume.offset[0] / volume.voxel_size[0] + Fraction(1, 2))
    held = range(first, first + volume.spatial_shape[0])
    replaced, dropped = {}, set[int]()
    for bad, good in parse_sections(sections).items():
        if bad not in held:
            continue
        if good is None:
            dropped.add(bad - first)
        elif good in held:
            replaced[bad - first] = good - first
        else:
            raise BadInput(
                f"{volume.path}: replace_sections: {good} is to take the place of {bad}, expected one of the sections "
                f"there, {held[0]} to {held[-1]}"
            )
    return replaced, frozenset(dropped)


def _meaning(volume: Volume) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Return the channels and their offsets, see `AffinityVolume`."""
    if volume.channels is None or volume.voxel_size.dims != 3:
        raise BadInput(
            f"{volume.path}: {len(volume.shape)} axes {volume.shape}, expected affinities with 4 (c, z, y, x)"
        )
    check_not_empty(volume)
    if volume.dtype != np.uint8 and volume.dtype.kind != "f":
        raise BadInput(f"{volume.path}: {volume.dtype}, expected affinities as uint8, or as floats in [0, 1]")
    has_neighborhood = "neighborhood" in volume.attributes
    if not has_neighborhood and (volume.channels > _MOST_CHANNELS or 2 < volume.shape[-1] < min(volume.channels, 5)):
        raise BadInput(
            f"{volume.path}: shape {volume.shape} has {volume.channels} channels, expected the order (c, z, y, x) with "
            f"at most {_MOST_CHANNELS} channels, or 'neighborhood' with an offset for each"
        )
    neighborhood = volume.attributes.get("neighborhood", NEAR)
    try:
        offsets = [tuple(int(n) for n in offset) for offset in neighborhood]
    except (TypeError, ValueError):
        raise BadInput(
            f"{volume.path}: 'neighborhood' holds {neighborhood!r}, expected offsets as {list(NEAR)}"
        ) from None
    if volume.channels < 3 or (has_neighborhood and len(offsets) != volume.channels):
        expected = (
            f"{len(offsets)}, one per offset of 'neighborhood'"
            if has_neighborhood
            else "affinities to the next voxel in z, y and x"
        )
        raise BadInput(f"{volume.path}: holds {volume.channels} channels, expected {expected}")
    if not set(NEAR) <= set(offsets):
        raise BadInput(f"{volume.path}: holds offsets {offsets}, expected the next voxel in z, y and x: {list(NEAR)}")
    near = [offsets.index(offset) for offset in NEAR]
    order = (*near, *(c for c in range(len(offsets)) if c not in near))
    return order, tuple(offsets[c] for c in order)
