"""Grey values of any type as numbers from 0 to 1, by the range that `normalization.grey_range` says.

stored        uint8 12 .. 250       uint16 70 .. 4012          float32 -300 .. 1800
range         0 .. 255              0 .. 4095                  measured, -280 .. 1650
read          uint8, as stored      float32, 0.017 .. 0.98     float32, 0 .. 1: values beyond the range are cut off

uint8 in the range of its type, and floats that lie in [0, 1] already, are read as they are stored.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.data.normalization import Normalization
from emsuite.io.volume import Volume, open_volume

logger = logging.getLogger(__name__)

TYPES = "uint8, uint16, uint32, int8, int16, int32, bool or floats"
_SECTIONS = 32  # sections of a volume that its values are measured on
_MOST_VALUES = 2**19  # of a section
_SPARE = 4  # a type whose range is this many times that of the values is worth a warning


class GreyRange(NamedTuple):
    """The grey values that become 0 and 1."""

    low: float
    high: float

    def apply(self, grey: np.ndarray) -> np.ndarray:
        """Return grey values of any type and shape as float32 in [0, 1], cut off at both ends; NaN stays NaN."""
        is_exact = np.can_cast(grey.dtype, np.float32)  # integers of 32 bits and float64 need more on the way
        unit: Any = grey.astype(np.float32 if is_exact else np.float64)
        unit -= self.low
        unit /= self.high - self.low
        return np.asarray(np.clip(unit, 0, 1, out=unit), np.float32)


@dataclass(frozen=True)
class GreyArray:
    """An array of grey values that is read by slices as float32 in [0, 1]."""

    stored: Any
    grey_range: GreyRange
    dtype = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels per axis."""
        return tuple(self.stored.shape)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Voxels per axis of a chunk, if the array has chunks."""
        return getattr(self.stored, "chunks", None)

    @property
    def shards(self) -> tuple[int, ...] | None:
        """Voxels per axis of a shard, if the array has shards."""
        return getattr(self.stored, "shards", None)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.grey_range.apply(np.asarray(self.stored[index]))


def is_grey(dtype: np.dtype) -> bool:
    """Return whether voxels of a type can be raw; integers of 64 bits are labels."""
    return dtype.kind in "fb" or (dtype.kind in "ui" and dtype.itemsize <= 4)


def range_of_type(dtype: np.dtype) -> GreyRange | None:
    """Return the range of integers or booleans; None for floats, which lie in [0, 1]."""
    if dtype.kind == "f":
        return None
    return GreyRange(0, 1) if dtype.kind == "b" else GreyRange(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))


def in_grey_range(raw: Volume, normalization: Normalization, measured: GreyRange | None = None) -> Volume:
    """Return raw, to be read as uint8, or as float32 in [0, 1].

    Args:
        raw: `(Z, Y, X)` of a type that `is_grey`.
        normalization: says the range.
        measured: the range for `percentiles`, of the training volumes.

    Raises:
        BadInput: `percentiles`, but none were measured.
    """
    said = normalization.grey_range
    if said == "percentiles" and measured is None:
        raise BadInput(f"{raw.path}: normalization.grey_range is percentiles, but the checkpoint records none of them")
    chosen = range_of_type(raw.dtype) if said == "dtype" else measured if said == "percentiles" else GreyRange(*said)
    is_stored_so = raw.dtype == np.uint8 and chosen == (0, 255)
    return raw if chosen is None or is_stored_so else replace(raw, array=GreyArray(raw.array, chosen))


def reopened(raw: Volume) -> Volume:
    """Open raw once more, for another process, to be read in the same range."""
    opened = open_volume(raw.path)
    if isinstance(raw.array, GreyArray):
        return replace(opened, array=replace(raw.array, stored=opened.array))
    return opened


def measure_range(volumes: Sequence[Volume], percentiles: tuple[float, float]) -> GreyRange:
    """Return two percentiles of volumes together, from up to 32 sections of each; BadInput if they are one value."""
    values = np.concatenate([section for volume in volumes for section in _sections(volume)])
    low, high = map(float, np.percentile(values, percentiles)) if values.size else (0.0, 0.0)
    if not low < high:
        names = ", ".join(str(volume.path) for volume in volumes)
        raise BadInput(
            f"{names}: percentiles {percentiles[0]:g} and {percentiles[1]:g} are {low:g} and {high:g}, expected "
            "two different grey values; set normalization.grey_range to [low, high]"
        )
    return GreyRange(low, high)


def tell_range(raw: Volume, chosen: Volume) -> None:
    """Log the values that raw holds and the range in which they are read, unless both are uint8's own.

    Args:
        raw: as it is stored.
        chosen: as it is read, see `in_grey_range`.
    """
    if raw.dtype == np.uint8 and not isinstance(chosen.array, GreyArray):
        return
    values = np.concatenate([*_sections(raw), np.zeros(0)])
    if not values.size:
        return
    low, high = float(values.min()), float(values.max())
    read = chosen.array.grey_range if isinstance(chosen.array, GreyArray) else GreyRange(0, 1)
    told = f"{raw.path}: {raw.dtype} from {low:g} to {high:g} in {_SECTIONS} sections at most; "
    told += f"{read.low:g} to {read.high:g} become 0 to 1"
    if (high - low) * _SPARE > read.high - read.low or raw.dtype.kind in "fb":
        logger.info("%s", told)
        return
    bits = max(1, math.ceil(math.log2(high + 1))) if low >= 0 else 0
    better = f"[0, {2**bits - 1}] ({bits} bits)" if bits else f"[{low:g}, {high:g}]"
    logger.warning("%s, which is far more: normalization.grey_range %s or percentiles uses all of it", told, better)


def warn_of_range(raw: Volume, chosen: Volume) -> None:
    """Warn if most values of raw lie outside the range in which they are read, as of another microscope.

    Args:
        raw: as it is stored.
        chosen: as it is read, see `in_grey_range`.
    """
    if not isinstance(chosen.array, GreyArray):
        return
    low, high = chosen.array.grey_range.low, chosen.array.grey_range.high
    values = np.concatenate([*_sections(raw), np.zeros(0)])
    outside = float(((values < low) | (values > high)).mean()) if values.size else 0.0
    if outside > 0.5:
        logger.warning(
            "%s: %.0f %% of its grey values, %g to %g, lie outside %g to %g, which become 0 to 1, and are cut off",
            raw.path, 100 * outside, values.min(), values.max(), low, high,
        )  # fmt: skip


def _sections(volume: Volume) -> Iterator[np.ndarray]:
    """Yield the finite values of sections that are evenly spaced, a part of large ones, as float64."""
    depth = volume.shape[0]
    step = max(1, depth // _SECTIONS)
    for z in range(step // 2, depth, step):
        values = volume[z : z + 1].ravel()
        values = values[:: -(-values.size // _MOST_VALUES)].astype(np.float64)
        yield values[np.isfinite(values)]
