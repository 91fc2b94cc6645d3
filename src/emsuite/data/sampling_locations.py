"""The places in a volume where a sample may lie, and a uniform draw from them without rejection.

Enough of the output must be masked in. The count at every place comes from the mask's integral image (summed-area
table; Crow 1984), one plane of places after the other, so that the mask may be larger than memory. Since good places
lie in runs along x, runs are all that is kept.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from emsuite.augment.resample import Source

_SLAB = 32  # sections of the mask that are read at once

_Pair = tuple[np.ndarray, np.ndarray]


class Locations:
    """All places at which a box of `shape` voxels, at most `padding` voxels outside the mask, is masked in enough.

    All in voxels, z y x; how many there are is its length.
    """

    def __init__(
        self, mask: Source | np.ndarray, shape: Sequence[int], padding: Sequence[int], min_masked: float,
        full: bool = False,
    ):  # fmt: skip
        """`mask` is (Z, Y, X), set where not 0, and everywhere if `full`; `min_masked` is a share, 0 to 1.

        A box may lie beyond the mask.
        """
        self._first = np.array([-p for p in padding])
        self._places = [max(0, n + 2 * p - s + 1) for n, p, s in zip(mask.shape, padding, shape, strict=True)]
        self._planes: list[_Pair] = []
        """Of each plane the first place of every run, and how many places there are up to its end."""
        self._plane = np.zeros(0, np.int64)  # of each z
        if min(self._places) > 0:
            windows = [_windows(*axis) for axis in zip(mask.shape, shape, padding, self._places, strict=True)]
            self._plane, counts = _full(windows) if full else (np.arange(self._places[0]), _counts(mask, windows))
            self._planes = [_runs(masked >= min_masked * np.prod(shape)) for masked in counts]
        in_planes = np.array([ends[-1] if len(ends) else 0 for _, ends in self._planes], np.int64)
        self._ends = in_planes[self._plane].cumsum()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def draw(self, random: np.random.Generator) -> tuple[int, int, int]:
        """The first voxel of a box, each place alike, relative to the mask's first voxel; there must be a place."""
        number = random.integers(len(self))
        z = int(np.searchsorted(self._ends, number, side="right"))
        starts, ends = self._planes[self._plane[z]]
        number -= self._ends[z - 1] if z else 0
        run = np.searchsorted(ends, number, side="right")
        y, x = divmod(int(starts[run] + number - (ends[run - 1] if run else 0)), self._places[2])
        z, y, x = (int(n) for n in np.array([z, y, x]) + self._first)
        return z, y, x


def _windows(size: int, length: int, padding: int, places: int) -> _Pair:
    """Begin and end, inside the mask, of the box at every place along one axis."""
    begin = np.arange(places) - padding
    return begin.clip(0, size), (begin + length).clip(0, size)


def _full(windows: Sequence[_Pair]) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """Where all is masked in: which plane each z has, and the counts of the planes, of which there are few."""
    sections, y, x = (end - begin for begin, end in windows)
    plane = np.outer(y, x)
    different, which = np.unique(sections, return_inverse=True)
    return which, (plane * number for number in different)


def _counts(mask: Source | np.ndarray, windows: Sequence[_Pair]) -> Iterator[np.ndarray]:
    """Of every plane of places, how many voxels are masked in at each."""
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
    """The integral image (Y + 1, X + 1) of every section."""
    for begin in range(0, mask.shape[0], _SLAB):
        for section in np.asarray(mask[begin : begin + _SLAB, :, :]):
            integral = np.zeros([n + 1 for n in section.shape], dtype=np.int32)
            np.not_equal(section, 0, out=integral[1:, 1:], casting="unsafe")
            for axis in range(2):
                np.cumsum(integral, axis=axis, out=integral)
            yield integral


def _runs(good: np.ndarray) -> _Pair:
    """Flat begin of every run of True in a plane, and how many there are up to its end."""
    edges = np.flatnonzero(np.diff(good.ravel(), prepend=False, append=False))
    return edges[::2], (edges[1::2] - edges[::2]).cumsum()
