"""The weighted sums of overlapping outputs, row by row, in memory set by the tile and not by the row.

    row        +-----------+-----------+-----------+---     up to 4 x 4 shards along z and y, all of x; one worker
               |  shard    |  shard    |  shard    |        writes it, and computes all tiles that reach into it
               +-----------+-----------+-----------+---
    written    |===========|
    sums                   |-----------------|              float64, from the first shard that is not written to the end
    next tile                      |---------|              of the output that was added last

Tiles come sorted by x, then z, then y: a shard is complete as soon as a tile begins behind it. Each voxel adds its
outputs in this order, whatever the rows: neither rows nor workers change a byte.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from emsuite.common.geometry import Roi
from emsuite.prediction.tile_grid import Tile

Write = Callable[[Roi, dict[str, np.ndarray]], None]
"""Writes a region, in voxels of raw, of each head: `(C, Z, Y, X)` float32 in [0, 1]."""


class RowSums:
    """The sums of one row. It writes shards as they are complete."""

    def __init__(self, region: Roi, shard: int, width: int, write: Write):
        """Begin a row.

        Args:
            region: what the row covers, voxels of raw.
            shard: voxels of a shard along x.
            width: voxels of an output along x.
            write: is called for one or more shards at once.
        """
        self._region, self._shard, self._write = region, shard, write
        self._length = min(width + shard, region.shape[2])
        self._front = region.begin[2]
        self._sums: dict[str, np.ndarray] = {}

    def advance(self, tile: Tile) -> None:
        """Write the shards that lie before `tile`, which may be left out of the sums."""
        complete = (tile.begin[2] - self._front) // self._shard * self._shard
        if complete > 0:
            self._flush(complete)

    def add(self, tile: Tile, weights: np.ndarray, outputs: Mapping[str, np.ndarray]) -> None:
        """Add the output of `tile`, to which `advance` has come.

        Args:
            tile: begins at the x of the tile before, or behind it.
            weights: `(Z, Y, X)`, of the whole output.
            outputs: `(C, Z, Y, X)` float per head, at least as large as `weights`, from the tile's begin on.
        """
        kept = Roi(tile.keep_begin, tile.keep_shape).intersect(self._region)
        of_output = _slices(kept, tile.begin)
        of_sums = _slices(kept, (*self._region.begin[:2], self._front))
        for name, output in outputs.items():
            if name not in self._sums:
                shape = (len(output), *self._region.shape[:2], self._length)
                self._sums[name] = np.zeros(shape)
            for channel, values in zip(self._sums[name], output, strict=True):  # one at a time, to hold less
                channel[of_sums] += values[of_output] * weights[of_output]

    def finish(self) -> None:
        """Write the rest of the row."""
        self._flush(self._region.end[2] - self._front)

    def _flush(self, length: int) -> None:
        region = Roi((*self._region.begin[:2], self._front), (*self._region.shape[:2], length))
        # float32 hides the last bits of the sums: equal outputs yield the same value as one of them
        self._write(region, {name: sums[..., :length].astype(np.float32) for name, sums in self._sums.items()})
        for sums in self._sums.values():
            rest = self._length - length
            sums[..., :rest] = sums[..., length:]
            sums[..., rest:] = 0
        self._front += length


def _slices(roi: Roi, origin: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(b - o, e - o) for b, e, o in zip(roi.begin, roi.end, origin, strict=True))
