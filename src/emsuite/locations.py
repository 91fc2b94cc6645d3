"""The places in a volume where a sample may lie, and a uniform draw from them without rejection.

Enough of the output must be masked in. The count at every place comes from the mask's integral image (summed-area
table; Crow 1984), and since good places lie in runs along x, runs are all that is kept.
"""

from collections.abc import Iterator, Sequence

import numpy as np


class Locations:
    """All places at which a box of `shape` voxels, at most `padding` voxels outside the mask, is masked in enough."""

    def __init__(self, mask: np.ndarray, shape: Sequence[int], padding: Sequence[int], min_masked: float):
        """`mask` is (Z, Y, X), set where not 0; `min_masked` is a share, 0 to 1; a box may lie beyond the mask."""
        self._first = np.array([-p for p in padding])
        self._places = np.array([n + 2 * p - s + 1 for n, p, s in zip(mask.shape, padding, shape, strict=True)])
        starts, lengths = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        if self._places.min() > 0:
            windows = [_windows(*axis) for axis in zip(mask.shape, shape, padding, self._places, strict=True)]
            counts = _counts_of_full(windows) if mask.all() else _counts(mask, windows)
            for plane, masked in enumerate(counts):
                start, length = _runs(masked >= min_masked * np.prod(shape))
                starts.append(start + plane * masked.size)
                lengths.append(length)
        self._starts, self._ends = np.concatenate(starts), np.concatenate(lengths).cumsum()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def draw(self, random: np.random.Generator) -> tuple[int, int, int]:
        """The first voxel of a box, each place alike, relative to the mask's first voxel."""
        number = random.integers(len(self))
        run = np.searchsorted(self._ends, number, side="right")
        # counted from the end of its run, since only ends are kept
        flat = self._starts[run] + number - (self._ends[run - 1] if run else 0)
        z, y, x = np.array(np.unravel_index(flat, self._places)) + self._first
        return int(z), int(y), int(x)


def _windows(size: int, length: int, padding: int, places: int) -> tuple[np.ndarray, np.ndarray]:
    """Begin and end, inside the mask, of the box at every place along one axis."""
    begin = np.arange(places) - padding
    return begin.clip(0, size), (begin + length).clip(0, size)


def _counts_of_full(windows: Sequence[tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
    z, y, x = (end - begin for begin, end in windows)
    plane = np.outer(y, x)
    for sections in z:
        yield plane * sections


def _counts(mask: np.ndarray, windows: Sequence[tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
    integral = np.zeros([n + 1 for n in mask.shape], dtype=np.int64 if mask.size >= 2**31 else np.int32)
    inside = integral[1:, 1:, 1:]
    np.not_equal(mask, 0, out=inside, casting="unsafe")
    for axis in range(3):
        np.cumsum(inside, axis=axis, out=inside)
    (z0, z1), (y0, y1), (x0, x1) = windows
    for low, high in zip(z0, z1, strict=True):
        rows = integral[high] - integral[low]
        columns = rows[y1] - rows[y0]
        yield columns[:, x1] - columns[:, x0]


def _runs(good: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flat begin and length of every run of True in a plane."""
    edges = np.flatnonzero(np.diff(good.ravel(), prepend=False, append=False))
    return edges[::2], edges[1::2] - edges[::2]
