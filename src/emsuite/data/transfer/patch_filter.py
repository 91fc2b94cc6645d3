"""Which patches of a volume are worth training on: dense ones, and those whose grey values are like a target's.

    density    kept if the mean of a block is at least that of its slice (of CCGAN's notebook for expansion microscopy)
    likeness   kept if a block's histogram and its share of foreground lie near those of target patches

Distances are earth mover's: what must be moved, times how far, to turn one distribution into another.

    intensities   of a block's histogram to that of all target patches together, grey values from 0 to 1
    foreground    of a block's share of foreground to the shares of the target patches: the mean absolute difference
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from emsuite.common.settings import NonNegative, Settings

BINS = 64
"""Of histograms of grey values from 0 to 1."""


class Likeness(Settings):
    """How like a block must be to patches of a target."""

    target: Path = Field(description="array of images that patches are to be like; cut as the volume is")
    share: float | None = Field(None, gt=0, le=1, description="of the blocks that density kept, the nearest are kept")
    most_distance: NonNegative | None = Field(
        None, description="blocks that lie farther are dropped, in place of share"
    )
    intensity_weight: NonNegative = Field(1.0, description="of the distance of intensities")
    foreground_weight: NonNegative = Field(1.0, description="of the distance of shares of foreground")
    foreground: Literal["bright", "dark"] = Field("bright", description="which side of Otsu's threshold it is")
    target_foreground: Literal["bright", "dark"] = Field("bright", description="the same in the target")

    @model_validator(mode="after")
    def _consistent(self) -> "Likeness":
        if (self.share is None) == (self.most_distance is None):
            raise ValueError("share and most_distance: expected one of the two")
        if not self.intensity_weight + self.foreground_weight > 0:
            raise ValueError("intensity_weight and foreground_weight are 0, expected one above")
        return self


class PatchFilter(Settings):
    """How a volume is cut into blocks, and which of them are kept."""

    patch: tuple[PositiveInt, PositiveInt] = Field((128, 128), description="pixels of a block, y x, after scaling")
    depth: PositiveInt = Field(1, description="sections of a block; 1 for 2-D networks")
    scale: float = Field(1.0, gt=0, le=16, description="sections are resized by it before they are cut")
    grey_range: Literal["extremes", "dtype"] = Field(
        "extremes", description="grey values that become 0 and 1: extremes of the volume, as published, or of its type"
    )
    leave_out: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt] = Field(
        (0, 0, 0), description="sections, rows and columns of blocks at each side that are dropped, z y x"
    )
    least_density: NonNegative | None = Field(
        1.0, description="least mean of a block, in means of its slice; null keeps all"
    )
    likeness: Likeness | None = Field(None, description="likeness to a target (default: any block will do)")


class BlockNumbers(NamedTuple):
    """What is measured of the blocks of one slab, each an array (rows, columns)."""

    mean: np.ndarray
    """Grey values from 0 to 1."""
    foreground: np.ndarray
    """Share of voxels, 0 to 1."""
    histogram: np.ndarray
    """(rows, columns, BINS), the share of voxels in each bin."""
    slab_mean: float
    """Of the whole slab, with what the blocks leave out."""


def resized(slab: np.ndarray, scale: float, nearest: bool = False) -> np.ndarray:
    """Return sections (Z, Y, X) resized by a scale: bilinear, averaged where they shrink; labels by the nearest voxel.

    A section has round(n * scale) pixels along each axis, at least 1.
    """
    if scale == 1:
        return slab
    size = [max(1, round(n * scale)) for n in slab.shape[1:]]
    if nearest:
        y, x = (
            np.minimum(((np.arange(m) + 0.5) * n / m).astype(int), n - 1)
            for m, n in zip(size, slab.shape[1:], strict=True)
        )
        return slab[:, y][:, :, x]
    images = torch.from_numpy(np.ascontiguousarray(slab, np.float32))[:, None]
    return torch.nn.functional.interpolate(images, size, mode="bilinear", antialias=True)[:, 0].numpy()


def cut(slab: np.ndarray, patch: tuple[int, int]) -> np.ndarray:
    """Return the blocks of a slab (Z, Y, X) from its corner, (rows, columns, Z, *patch); the rest is dropped."""
    (height, width), depth = patch, slab.shape[0]
    rows, columns = slab.shape[1] // height, slab.shape[2] // width
    cropped = slab[:, : rows * height, : columns * width]
    return cropped.reshape(depth, rows, height, columns, width).transpose(1, 3, 0, 2, 4)


def measure(slab: np.ndarray, patch: tuple[int, int], threshold: float, bright: bool) -> BlockNumbers:
    """Measure the blocks of a slab (Z, Y, X) of grey values from 0 to 1.

    Args:
        slab: resized already.
        patch: pixels of a block, y x.
        threshold: of foreground.
        bright: whether foreground lies above the threshold.
    """
    blocks = cut(slab, patch)
    rows, columns = blocks.shape[:2]
    flat = blocks.reshape(rows, columns, -1)
    above = (flat > threshold).mean(axis=2)
    return BlockNumbers(
        flat.mean(axis=2, dtype=np.float64),
        above if bright else 1 - above,
        histograms(flat),
        float(slab.mean(dtype=np.float64)),
    )


def histograms(values: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Return the share of values (..., n), from 0 to 1, in each bin, (..., bins)."""
    flat = values.reshape(-1, values.shape[-1])
    bin_of = np.clip((flat * bins).astype(np.int64), 0, bins - 1) + bins * np.arange(len(flat))[:, None]
    counts = np.bincount(bin_of.ravel(), minlength=bins * len(flat))
    return counts.reshape(*values.shape[:-1], bins) / values.shape[-1]


def dense(numbers: BlockNumbers, least_density: float | None) -> np.ndarray:
    """Return which blocks are kept by density, (rows, columns) bool."""
    if least_density is None:
        return np.ones(numbers.mean.shape, bool)
    # the mean of equal numbers may lie a rounding below them
    return numbers.mean >= least_density * numbers.slab_mean - 1e-9


def otsu(histogram: np.ndarray) -> float:
    """Return the threshold of two classes with the largest variance between them (Otsu 1979), in the middle of ties.

    Args:
        histogram: the share of values from 0 to 1 in each bin.
    """
    bins = len(histogram)
    middles = (np.arange(bins) + 0.5) / bins
    below = np.cumsum(histogram)[:-1]
    first, whole = np.cumsum(histogram * middles)[:-1], float((histogram * middles).sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (whole * below - first) ** 2 / (below * (1 - below))
    between = np.where(np.isfinite(between), between, 0.0)
    best = np.flatnonzero(between >= between.max() - 1e-12)
    return float(best.mean() + 1) / bins


@dataclass(frozen=True)
class Target:
    """The distributions of target patches."""

    histogram: np.ndarray
    """(BINS,), of all together."""
    foreground: np.ndarray
    """The share of foreground of each."""

    def distances(self, histogram: np.ndarray, foreground: np.ndarray, likeness: Likeness) -> np.ndarray:
        """Return the distance of blocks with these histograms (..., BINS) and shares of foreground (...)."""
        of_foreground = np.abs(foreground[..., None] - self.foreground).mean(axis=-1)
        of_intensities = earth_movers_distance(histogram, self.histogram)
        return likeness.intensity_weight * of_intensities + likeness.foreground_weight * of_foreground


def earth_movers_distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the earth mover's distance of histograms (..., bins) of values from 0 to 1: 1 from all black to white."""
    bins = one.shape[-1]
    apart = np.abs(np.cumsum(one, axis=-1) - np.cumsum(other, axis=-1))
    return apart[..., :-1].sum(axis=-1) / (bins - 1)


def nearest(distances: np.ndarray, likeness: Likeness) -> np.ndarray:
    """Return which blocks are kept by their distances (n,), bool; of equal ones the first."""
    if likeness.most_distance is not None:
        return distances <= likeness.most_distance
    assert likeness.share is not None
    kept = np.zeros(len(distances), bool)
    kept[np.argsort(distances, kind="stable")[: max(1, round(likeness.share * len(distances)))]] = len(distances) > 0
    return kept
