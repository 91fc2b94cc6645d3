"""The positions in a volume that can be sampled, and a uniform draw from them without rejection.

At a legal position enough of the output is masked in. The count of masked-in voxels at each position comes from the
mask's integral image (summed-area table; Crow 1984), one plane of positions after the other, so that the mask may be
larger than memory. Legal positions form runs along x; only the runs are stored.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from emsuite.augment.resample import Source

_SLAB = 32  # sections of the mask that are read together

_Pair = tuple[np.ndarray, np.ndarray]


class Locations:
    """All positions at which a box of `shape` voxels contains enough masked-in voxels; `len` is their number.

    A box may extend up to `padding` voxels beyond the mask. Everything counts in voxels of the mask, z y x.
    """

    def __init__(
        self, mask: Source | np.ndarray, shape: Sequence[int], padding: Sequence[int], min_masked: float,
        full: bool = False,
    ):  # fmt: skip
        """Find the positions.

        Args:
            mask: (Z, Y, X), a voxel is masked in where it is not 0.
            shape: of the box.
            padding: how far a box may extend beyond the mask.
            min_masked: the least share of the box that must be masked in, 0 to 1.
            full: the mask is 1 throughout and need not be read.
        """
        self._first = np.array([-p for p in padding])
        self._positions = [max(0, n + 2 * p - s + 1) for n, p, s in zip(mask.shape, padding, shape, strict=True)]
        self._planes: list[_Pair] = []
        """For each plane, the first position of every run, and the number of positions up to its end."""
        self._plane = np.zeros(0, np.int64)  # the index in `_planes` of each z
        if min(self._positions) > 0:
            windows = [_windows(*axis) for axis in zip(mask.shape, shape, padding, self._positions, strict=True)]
            self._plane, counts = _full(windows) if full else (np.arange(self._positions[0]), _counts(mask, windows))
            self._planes = [_runs(masked >= min_masked * np.prod(shape)) for masked in counts]
        in_planes = np.array([ends[-1] if len(ends) else 0 for _, ends in self._planes], np.int64)
        self._ends = in_planes[self._plane].cumsum()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __contains__(self, begin: Sequence[int]) -> bool:
        """Return whether a box may begin at this voxel, relative to the first voxel of the mask."""
        z, y, x = (int(n) for n in np.array(begin) - self._first)
        if not all(0 <= n < count for n, count in zip((z, y, x), self._positions, strict=True)):
            return False
        starts, ends = self._planes[self._plane[z]]
        place = y * self._positions[2] + x
        run = int(np.searchsorted(starts, place, side="right")) - 1
        return run >= 0 and place - starts[run] < ends[run] - (ends[run - 1] if run else 0)

    def draw(self, random: np.random.Generator) -> tuple[int, int, int]:
        """Return the first voxel of a box, uniformly drawn, relative to the first voxel of the mask."""
        number = random.integers(len(self))
        z = int(np.searchsorted(self._ends, number, side="right"))
        starts, ends = self._planes[self._plane[z]]
        number -= self._ends[z - 1] if z else 0
        run = np.searchsorted(ends, number, side="right")
        y, x = divmod(int(starts[run] + number - (ends[run - 1] if run else 0)), self._positions[2])
        z, y, x = (int(n) for n in np.array([z, y, x]) + self._first)
        return z, y, x


def _windows(size: int, length: int, padding: int, positions: int) -> _Pair:
    """Return begin and end, clipped to the mask, of the box at every position along one axis."""
    begin = np.arange(positions) - padding
    return begin.clip(0, size), (begin + length).clip(0, size)


def _full(windows: Sequence[_Pair]) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """For a full mask, return the plane index of each z, and the counts of the few different planes."""
    sections, y, x = (end - begin for begin, end in windows)
    plane = np.outer(y, x)
    different, which = np.unique(sections, return_inverse=True)
    return which, (plane * number for number in different)


def _counts(mask: Source | np.ndarray, windows: Sequence[_Pair]) -> Iterator[np.ndarray]:
    """Yield, for every plane of positions, the number of masked-in voxels at each position."""
    (z0, z1), (y0, y1), (x0, x1) = windows
    within = np.zeros([n + 1 for n in mask.shape[1:]], dtype=np.int64)  # the integral image of sections z0 to z1
    entering, leaving = _integrals(mask), _integrals(mask)
    begin = end = 0
    for low, high in zip(z0, z1, strict=True):
        for _ in range(end, high):
            within += next(entering)
        for _ in range(begin, low):
            within -= next(leaving)
        begin, end = low, high
        rows = within[y1] - within[y0]
        yield rows[:, x1] - rows[:, x0]


def _integrals(mask: Source | np.ndarray) -> Iterator[np.ndarray]:
    """Yield the integral image (Y + 1, X + 1) of every section."""
    for begin in range(0, mask.shape[0], _SLAB):
        for section in np.asarray(mask[begin : begin + _SLAB, :, :]):
            integral = np.zeros([n + 1 for n in section.shape], dtype=np.int32)
            np.not_equal(section, 0, out=integral[1:, 1:], casting="unsafe")
            for axis in range(2):
                np.cumsum(integral, axis=axis, out=integral)
            yield integral


def _runs(good: np.ndarray) -> _Pair:
    """Return the flat index of the first True of every run, and the number of True up to the end of the run."""
    edges = np.flatnonzero(np.diff(good.ravel(), prepend=False, append=False))
    return edges[::2], (edges[1::2] - edges[::2]).cumsum()
