"""Statistics of grey values, for the whole data set, each position, each volume and each tile.

    volume (Z, Y, X)  ->  moments, range        merged to those of a position, and of the data set
                      ->  histogram             in the range of the channel, for the percentiles of position and set

Empty sections, one value throughout, do not count: frames without light would spoil all numbers (VisCy issue 422).
Who changes grey values judges before: `empty` (Z,) bool then says which sections are; None: those of one value here.
Percentiles of volumes and tiles are exact; those of positions and the data set are off by at most the range / 65,536.
"""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.files import write_table
from emsuite.plates.flat_field import empty_sections

COLUMNS = (
    "scope",
    "position",
    "time",
    "channel",
    "z",
    "y",
    "x",
    "voxels",
    "mean",
    "std",
    "low",
    "high",
    "empty",
    "foreground",
)
_BINS = 65_536
_TINY = 2.2e-16  # microDL's, beside the deviation


@dataclass(frozen=True)
class Moments:
    """Number, mean, summed squares of the deviations, and range of values; `empty` counts sections left out."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    lowest: float = np.inf
    highest: float = -np.inf
    empty: int = 0

    @classmethod
    def of(cls, volume: np.ndarray, empty: np.ndarray | None = None) -> "Moments":
        """Measure the sections of a volume (Z, Y, X) that are not empty."""
        values = _lit(volume, empty).astype(np.float64)
        dark = len(volume) - len(values)
        if not values.size:
            return cls(empty=dark)
        lowest, highest = float(values.min()), float(values.max())
        mean = lowest if lowest == highest else float(values.mean())  # a mean that is rounded would be a deviation
        squares = float(((values - mean) ** 2).sum())
        return cls(values.size, mean, squares, lowest, highest, dark)

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of both together (Chan, Golub and LeVeque 1983)."""
        count = self.count + other.count
        if not self.count or not other.count:
            one = self if self.count else other
            return Moments(one.count, one.mean, one.squares, one.lowest, one.highest, self.empty + other.empty)
        apart = other.mean - self.mean
        mean = self.mean + apart * other.count / count
        squares = self.squares + other.squares + apart**2 * self.count * other.count / count
        lowest, highest = min(self.lowest, other.lowest), max(self.highest, other.highest)
        return Moments(count, mean, squares, lowest, highest, self.empty + other.empty)

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest value; 0 and 1 if nothing was measured."""
        return (self.lowest, self.highest) if self.count else (0.0, 1.0)

    @property
    def deviation(self) -> float:
        """The standard deviation of the population."""
        return float(np.sqrt(self.squares / self.count)) if self.count else 0.0


class Where(NamedTuple):
    """A volume of a plate."""

    position: str
    time: int
    channel: int


Empty = Mapping[Where, np.ndarray]
"""The sections of volumes that are empty, (Z,) bool."""


class Row(NamedTuple):
    """A line of statistics.csv; `low` and `high` are the percentiles that were asked for."""

    scope: str
    position: str = ""
    time: int | str = ""
    channel: int = 0
    z: int | str = ""
    y: int | str = ""
    x: int | str = ""
    voxels: int = 0
    mean: float = 0.0
    std: float = 0.0
    low: float = 0.0
    high: float = 0.0
    empty: int = 0
    foreground: float | str = ""


def row_of(scope: str, moments: Moments, percentiles: tuple[float, float], **where: Any) -> Row:
    """Return the line of moments and percentiles."""
    count, mean, std = moments.count, moments.mean, moments.deviation
    return Row(
        scope, **where, voxels=count, mean=mean, std=std, low=percentiles[0], high=percentiles[1], empty=moments.empty
    )


def exact_percentiles(
    volume: np.ndarray, percentiles: tuple[float, float], empty: np.ndarray | None = None
) -> tuple[float, float]:
    """Return two percentiles of the sections of a volume that are not empty; 0 if all are."""
    values = _lit(volume, empty)
    if not values.size:
        return 0.0, 0.0
    low, high = np.percentile(values, percentiles)
    return float(low), float(high)


class Histogram:
    """Counts of values in equal bins of a range, of which percentiles are read."""

    def __init__(self, lowest: float, highest: float):
        self._range = (lowest, highest if highest > lowest else lowest + 1.0)
        self._counts = np.zeros(_BINS, np.int64)

    def add(self, volume: np.ndarray, empty: np.ndarray | None = None) -> None:
        """Count the sections of a volume that are not empty."""
        values = _lit(volume, empty)
        if values.size:
            self._counts += np.histogram(values, _BINS, self._range)[0]

    def merge(self, other: "Histogram") -> None:
        """Add the counts of another one with the same range."""
        self._counts += other._counts

    def percentiles(self, percentiles: tuple[float, float]) -> tuple[float, float]:
        """Return two percentiles, interpolated within a bin; 0 if nothing was counted."""
        total = np.concatenate([[0], np.cumsum(self._counts)])
        if not total[-1]:
            return 0.0, 0.0
        used = int(np.argmax(total == total[-1])) + 1  # behind them all edges have the same total
        edges = np.linspace(*self._range, _BINS + 1)[:used]
        low, high = np.interp(np.array(percentiles) / 100 * total[-1], total[:used], edges)
        return float(low), float(high)


def measure(
    volumes: Sequence[Where],
    read: Callable[[Where], np.ndarray],
    percentiles: tuple[float, float],
    run: Callable[[Callable[[Where], Any], Sequence[Where]], list[Any]],
    empty: Empty | None = None,
) -> list[Row]:
    """Return the statistics of the data set, of its positions and of its volumes, for each channel.

    Args:
        volumes: all volumes, in an order that does not depend on the run.
        read: returns the voxels (Z, Y, X) of one; each is read twice.
        percentiles: lower and upper.
        run: applies a function to all, as `in_threads`.
        empty: the sections of each volume that are empty; None: those of one value.
    """
    dark = empty or {}
    moments = dict(zip(volumes, run(lambda where: Moments.of(read(where), dark.get(where)), volumes), strict=True))
    ranges = {c: _merged(moments[v] for v in volumes if v.channel == c) for c in sorted({v.channel for v in volumes})}

    def count(where: Where) -> tuple[Histogram, tuple[float, float]]:
        voxels, histogram = read(where), Histogram(*ranges[where.channel].range)
        histogram.add(voxels, dark.get(where))
        return histogram, exact_percentiles(voxels, percentiles, dark.get(where))

    rows, of_channel = [], {channel: Histogram(*whole.range) for channel, whole in ranges.items()}
    for position in dict.fromkeys(where.position for where in volumes):
        for channel, whole in ranges.items():
            here = [where for where in volumes if (where.position, where.channel) == (position, channel)]
            together = Histogram(*whole.range)
            for where, (histogram, exact) in zip(here, run(count, here), strict=True):
                together.merge(histogram)
                rows.append(row_of("volume", moments[where], exact, **where._asdict()))
            of_channel[channel].merge(together)
            merged, near = _merged(moments[where] for where in here), together.percentiles(percentiles)
            rows.append(row_of("position", merged, near, position=position, channel=channel))
    near_all = {channel: histogram.percentiles(percentiles) for channel, histogram in of_channel.items()}
    return [row_of("dataset", whole, near_all[c], channel=c) for c, whole in ranges.items()] + rows


def _lit(volume: np.ndarray, empty: np.ndarray | None) -> np.ndarray:
    """Return the sections of a volume that are not empty."""
    return np.asarray(volume[~(empty_sections(volume) if empty is None else empty)])


def _merged(many: Iterable[Moments]) -> Moments:
    merged = Moments()
    for one in many:
        merged = merged.merge(one)
    return merged


def write_statistics(path: Path, rows: Iterable[Row]) -> None:
    """Write lines as a table."""
    write_table(path, COLUMNS, (row._asdict() for row in rows))


def read_statistics(path: Path) -> list[Row]:
    """Return the lines of a table that `write_statistics` wrote; raise BadInput for any other file."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [_row(line) for line in csv.DictReader(file)]
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file, expected the statistics of a plate") from None
    except (KeyError, ValueError, TypeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read as statistics: {error}") from None


def _row(line: dict[str, str]) -> Row:
    values: dict[str, Any] = {}
    for name in COLUMNS:
        text = line[name]
        kind = (
            str
            if name in ("scope", "position")
            else float
            if name in ("mean", "std", "low", "high", "foreground")
            else int
        )
        values[name] = "" if text == "" else kind(text)
    return Row(**values)


class GreyScale(NamedTuple):
    """normalized = (voxels - shift) / scale."""

    shift: float
    scale: float

    def apply(self, voxels: np.ndarray) -> np.ndarray:
        """Return normalized voxels, float32."""
        return np.asarray((voxels.astype(np.float64) - self.shift) / self.scale, np.float32)

    def undo(self, normalized: np.ndarray) -> np.ndarray:
        """Return the grey values of normalized voxels, float32."""
        return np.asarray(normalized.astype(np.float64) * self.scale + self.shift, np.float32)


def grey_scales(rows: Iterable[Row], method: str, scope: str) -> dict[Where, GreyScale]:
    """Return how each volume of a plate is normalized, by the statistics of the data set, its position or its own.

    Args:
        rows: of statistics.csv.
        method: z_score, percentile or none.
        scope: dataset, position or volume; tiles measure themselves.
    """
    known = {(row.scope, row.position, row.time, row.channel): row for row in rows}
    scales = {}
    for kind, position, time, channel in known:
        if kind == "volume":
            key = {"dataset": ("", ""), "position": (position, "")}.get(scope, (position, time))
            scales[Where(position, int(time), channel)] = grey_scale(known[scope, *key, channel], method)
    return scales


def grey_scale(row: Row, method: str) -> GreyScale:
    """Return how a line of statistics normalizes: z_score, percentile (-1 and 1 at both percentiles) or none.

    Voxels stay as they are where nothing was measured, as in a position without light.
    """
    if method == "none" or not row.voxels:
        return GreyScale(0.0, 1.0)
    if method == "z_score":
        return GreyScale(row.mean, row.std + _TINY)
    return GreyScale((row.low + row.high) / 2, max((row.high - row.low) / 2, _TINY))
