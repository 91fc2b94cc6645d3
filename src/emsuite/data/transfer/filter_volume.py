"""Every block of a volume, measured, and the choice of those that a patch filter keeps."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.progress import progress
from emsuite.data.grey_values import TYPES, GreyRange, is_grey, range_of_type
from emsuite.data.transfer.patch_filter import (
    BINS,
    BlockNumbers,
    Likeness,
    PatchFilter,
    Target,
    dense,
    histograms,
    measure,
    nearest,
    otsu,
    resized,
)
from emsuite.io.values import check_not_empty
from emsuite.io.volume import open_volume

_SLAB = 16
"""Sections that are read together for the range of grey values."""


@dataclass(frozen=True)
class Block:
    """A block, and what was measured of it."""

    section: int
    """The first."""
    number: int
    """In its slab, row by row."""
    row: int
    column: int
    mean: float
    slab_mean: float
    foreground: float
    is_dense: bool
    distance: float | None = None
    kept: bool = False

    @property
    def name(self) -> str:
        """The name of its file, without an ending."""
        return f"{self.section}_block_{self.number}"


class CutVolume:
    """A volume that is read slab by slab as grey values from 0 to 1, resized."""

    def __init__(self, path: Path, settings: PatchFilter):
        """Open it and measure its grey values; raise BadInput if it is no image, or too small for a block."""
        self.volume, self.settings = open_volume(path), settings
        check_not_empty(self.volume)
        if self.volume.channels is not None or self.volume.voxel_size.dims != 3 or not is_grey(self.volume.dtype):
            raise BadInput(f"{path}: {self.volume.dtype} {self.volume.shape}, expected images (z, y, x): {TYPES}")
        depth, height, width = self.volume.shape
        scaled = [max(1, round(n * settings.scale)) for n in (height, width)]
        self.rows, self.columns = (n // m for n, m in zip(scaled, settings.patch, strict=True))
        if depth < settings.depth or not (self.rows and self.columns):
            raise BadInput(
                f"{path}: {depth} sections of {tuple(scaled)} pixels after scaling, expected room for a block of "
                f"{settings.depth} sections of {settings.patch}"
            )
        self.grey_range, self.histogram = self._measured()

    @property
    def sections(self) -> range:
        """The first section of each slab."""
        return range(0, self.volume.shape[0] - self.settings.depth + 1, self.settings.depth)

    def grey(self, section: int) -> np.ndarray:
        """Return the slab that begins at a section, float32 from 0 to 1, resized."""
        voxels = self.volume[section : section + self.settings.depth]
        return resized(self.grey_range.apply(voxels), self.settings.scale)

    def numbers(self, likeness: Likeness | None, target: bool = False) -> Iterator[tuple[int, BlockNumbers]]:
        """Yield the first section and the numbers of each slab."""
        side = (likeness.target_foreground if target else likeness.foreground) if likeness else "bright"
        threshold = otsu(self.histogram)
        for section in progress(self.sections, what=f"blocks of {self.volume.path.name}"):
            yield section, measure(self.grey(section), self.settings.patch, threshold, side == "bright")

    def _measured(self) -> tuple[GreyRange, np.ndarray]:
        """Return the range of grey values, and their histogram in it."""
        known = range_of_type(self.volume.dtype) or GreyRange(0.0, 1.0)
        slabs = range(0, self.volume.shape[0], _SLAB)
        if self.settings.grey_range == "extremes":
            ends = [(each.min(), each.max()) for each in (self.volume[z : z + _SLAB] for z in slabs)]
            known = GreyRange(float(min(low for low, _ in ends)), float(max(high for _, high in ends)))
            if not known.low < known.high:
                raise BadInput(f"{self.volume.path}: all voxels are {known.low:g}, expected different grey values")
        counts = np.zeros(BINS)
        for z in slabs:
            voxels = known.apply(self.volume[z : z + _SLAB])
            counts += histograms(voxels.reshape(1, -1))[0] * voxels.size
        return known, counts / counts.sum()


def choose_blocks(volume: Path, settings: PatchFilter) -> list[Block]:
    """Return every block of a volume, with what was measured and whether it is kept.

    Raises:
        BadInput: the volume is no image, or holds no block; or the target does.
    """
    source, likeness = CutVolume(volume, settings), settings.likeness
    target = _target(likeness, settings) if likeness else None
    blocks, distances = list[Block](), list[float]()
    for section, numbers in source.numbers(likeness):
        is_dense = dense(numbers, settings.least_density) & _inside(settings, source, section)
        apart = target.distances(numbers.histogram, numbers.foreground, likeness) if target and likeness else None
        for number, (row, column) in enumerate(np.ndindex(source.rows, source.columns)):
            at = row, column
            measured = float(numbers.mean[at]), numbers.slab_mean, float(numbers.foreground[at]), bool(is_dense[at])
            distances.append(float(apart[at]) if apart is not None else 0.0)
            blocks.append(Block(section, number, row, column, *measured))
    return _with_choice(blocks, np.array(distances), likeness)


def _with_choice(blocks: list[Block], distances: np.ndarray, likeness: Likeness | None) -> list[Block]:
    kept = np.array([block.is_dense for block in blocks])
    if likeness:
        kept[kept] = nearest(distances[kept], likeness)
    told = distances.tolist() if likeness else [None] * len(blocks)
    pairs = zip(blocks, told, kept.tolist(), strict=True)
    return [replace(block, distance=apart, kept=is_kept) for block, apart, is_kept in pairs]


def _target(likeness: Likeness, settings: PatchFilter) -> Target:
    parts = [numbers for _, numbers in CutVolume(likeness.target, settings).numbers(likeness, target=True)]
    every = np.concatenate([part.histogram.reshape(-1, BINS) for part in parts])
    return Target(every.mean(axis=0), np.concatenate([part.foreground.ravel() for part in parts]))


def _inside(settings: PatchFilter, source: CutVolume, section: int) -> np.ndarray:
    """Return which blocks of a slab do not lie in the border that is left out."""
    sections, rows, columns = settings.leave_out
    inside = np.zeros((source.rows, source.columns), bool)
    if section >= sections and section + settings.depth <= source.volume.shape[0] - sections:
        inside[rows : source.rows - rows, columns : source.columns - columns] = True
    return inside
