"""Tiles of volumes: where they lie, their statistics and their foreground. None is written to disk.

|----tile----|
       |----tile----|
              |----tile----|      starts 0, step, 2 step, ...; the last tile is moved inside
"""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from emsuite.plates.statistics import Moments, Row, Where, exact_percentiles, row_of

Box = tuple[slice, slice, slice]


def tile_starts(length: int, size: int, step: int) -> list[int]:
    """Return the starts of tiles along an axis; raise ValueError if the axis is shorter than a tile."""
    if size > length:
        raise ValueError(f"{length} voxels along an axis, expected at least the {size} of a tile")
    starts = list(range(0, length - size + 1, step))
    return starts if starts[-1] == length - size else [*starts, length - size]


def tiles_of(shape: Sequence[int], size: Sequence[int], step: Sequence[int] | None) -> Iterator[Box]:
    """Yield the tiles of a volume, in order.

    Args:
        shape: Z, Y, X.
        size: of a tile, y and x (then of each slice), or z, y, x.
        step: from tile to tile along the same axes; None: the size.

    Raises:
        ValueError: the volume is smaller than a tile.
    """
    lengths = (*[1] * (3 - len(size)), *size)
    steps = (*[1] * (3 - len(size)), *(step or size))
    axes = [tile_starts(*axis) for axis in zip(shape, lengths, steps, strict=True)]
    for starts in product(*axes):
        z, y, x = (slice(start, start + length) for start, length in zip(starts, lengths, strict=True))
        yield z, y, x


def tile_rows(
    volume: np.ndarray,
    where: Where,
    boxes: Sequence[Box],
    mask: np.ndarray | None,
    percentiles: tuple[float, float],
    empty: np.ndarray,
) -> list[Row]:
    """Return the statistics of the tiles of a volume.

    Args:
        volume: (Z, Y, X).
        where: the volume.
        boxes: the tiles.
        mask: the foreground (Z, Y, X); None: unknown.
        percentiles: lower and upper.
        empty: the sections that are empty, (Z,) bool; a tile of one value counts in sections that are not.
    """
    rows = []
    for box in boxes:
        voxels = volume[box]
        place = where._asdict() | dict(zip("zyx", (part.start for part in box), strict=True))
        fraction = "" if mask is None else float(mask[box].mean())
        dark = empty[box[0]]
        row = row_of("tile", Moments.of(voxels, dark), exact_percentiles(voxels, percentiles, dark), **place)
        rows.append(row._replace(foreground=fraction))
    return rows


def kept_tiles(mask: np.ndarray, boxes: Sequence[Box], min_fraction: float) -> list[Box]:
    """Return the tiles with at least a fraction of foreground in a mask (Z, Y, X)."""
    return [box for box in boxes if mask[box].mean() >= min_fraction]
