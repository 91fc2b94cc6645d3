"""Known changes of images, that a transfer is to undo: box blur with holes, and a second look.

Each voxel depends on the seed and on its place in the volume alone, not on the block in which it is computed: random
numbers are drawn for cubes of a fixed lattice.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import product
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from scipy.ndimage import gaussian_filter

from emsuite.common.settings import NonNegative, Probability, Settings

_CUBE = 64
"""Voxels along each axis for which random numbers are drawn together."""
Box = tuple[slice, ...]
"""Of voxels, from the first of the volume."""
_Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


class Degradation(Settings):
    """The base class: changes images block by block."""

    needs_mean: ClassVar[bool] = False
    kind: str
    seed: NonNegativeInt = Field(0, description="the same seed gives the same bytes, on any number of workers")

    @property
    @abstractmethod
    def margin(self) -> tuple[int, int, int]:
        """Voxels around a block, z y x, on which it depends."""

    def weights(self, size: int, axis: int) -> np.ndarray:
        """Return how often each voxel along an axis counts in the mean that `apply` takes."""
        return np.ones(size)

    @abstractmethod
    def apply(self, grey: np.ndarray, read: Box, write: Box, shape: Sequence[int], mean: float) -> np.ndarray:
        """Return the changed voxels of a block, float64 from -1 to 1, not clipped.

        Args:
            grey: float64 from -1 to 1 of `read`.
            read: `write` and the margin around it, cut at the faces of the volume.
            write: the block.
            shape: voxels of the volume.
            mean: of the volume, weighted by `weights`.
        """


class BoxAndHoles(Degradation):
    """transfer_em's own test: a box mean with a border of 0, then holes that are set to the mean of the blurred."""

    needs_mean: ClassVar[bool] = True
    kind: Literal["box_and_holes"] = "box_and_holes"
    box: PositiveInt = Field(3, description="voxels along each axis of the box mean, an odd number")
    hole_rate: Probability = Field(4 / 128**2, description="probability of a voxel to begin a hole")
    hole_size: PositiveInt = Field(4, description="voxels along each axis of a hole")
    per_section: bool = Field(False, description="blur and holes in each z-section by itself, as of 2-D networks")

    @model_validator(mode="after")
    def _odd(self) -> "BoxAndHoles":
        if self.box % 2 == 0:
            raise ValueError(f"box: {self.box}, expected an odd number")
        return self

    @property
    def margin(self) -> tuple[int, int, int]:
        """Half a box, or half a hole."""
        around = max(self.box // 2, self.hole_size // 2)
        return (0 if self.per_section else around, around, around)

    def _along(self, axis: int) -> tuple[int, int]:
        """Return the lengths of box and hole along an axis."""
        return (1, 1) if self.per_section and axis == 0 else (self.box, self.hole_size)

    def weights(self, size: int, axis: int) -> np.ndarray:
        """Return the share of the boxes around a voxel that have their middle in the volume."""
        length = self._along(axis)[0]
        return _box_mean(np.ones(size), length, 0)

    def apply(self, grey: np.ndarray, read: Box, write: Box, shape: Sequence[int], mean: float) -> np.ndarray:
        """See `Degradation.apply`."""
        begun = _drawn(read, shape, self.seed, lambda random, n: random.random(n, dtype=np.float32)) < self.hole_rate
        for axis in range(3):
            box, hole = self._along(axis)
            grey, begun = _box_mean(grey, box, axis), _grown(begun, hole, axis)
        inner = _inner(read, write)
        return np.where(begun[inner], mean, grey[inner])


class SecondLook(Degradation):
    """Another microscope's look of the same tissue: inverted, another contrast, blurred, unevenly noisy."""

    kind: Literal["second_look"] = "second_look"
    inverted: bool = Field(True, description="whether dark becomes bright")
    gamma: NonNegative = Field(0.7, gt=0, description="exponent of the grey values from 0 to 1, after the inversion")
    darkest: Probability = Field(0.15, description="the grey value that 0 becomes, of 0 to 1")
    brightest: Probability = Field(0.8, description="the grey value that 1 becomes, of 0 to 1")
    blur: tuple[NonNegative, NonNegative, NonNegative] = Field(
        (1.2, 0.8, 0.8), description="standard deviations of a Gaussian, voxels, z y x"
    )
    noise: NonNegative = Field(0.02, description="standard deviation of noise of all voxels, of 0 to 1")
    shot_noise: NonNegative = Field(0.04, description="standard deviation of noise at the brightest, falls by a root")

    @model_validator(mode="after")
    def _ascending(self) -> "SecondLook":
        if self.darkest >= self.brightest:
            raise ValueError(f"darkest {self.darkest:g}, brightest {self.brightest:g}, expected the lower value first")
        return self

    @property
    def margin(self) -> tuple[int, int, int]:
        """Four standard deviations, where the Gaussian is cut."""
        z, y, x = (int(4 * sigma + 0.5) for sigma in self.blur)
        return z, y, x

    def apply(self, grey: np.ndarray, read: Box, write: Box, shape: Sequence[int], mean: float) -> np.ndarray:
        """See `Degradation.apply`."""
        unit = (1 - grey) / 2 if self.inverted else (1 + grey) / 2
        unit = self.darkest + (self.brightest - self.darkest) * unit**self.gamma
        unit = gaussian_filter(unit, self.blur, mode="reflect", truncate=4.0)[_inner(read, write)]
        normal = _drawn(write, shape, self.seed, lambda random, n: random.standard_normal(n, dtype=np.float32))
        sigma = np.sqrt(self.noise**2 + self.shot_noise**2 * unit)
        return (unit + sigma * normal) * 2 - 1


DEGRADATIONS: dict[str, type[Degradation]] = {"second_look": SecondLook, "box_and_holes": BoxAndHoles}
"""By the name of their kind."""


def _box_mean(values: np.ndarray, length: int, axis: int) -> np.ndarray:
    """Return the mean of an odd number of voxels along an axis; summed in one order, so that blocks agree."""
    around = [(length // 2, length // 2) if a == axis else (0, 0) for a in range(values.ndim)]
    padded, size = np.pad(values, around), values.shape[axis]
    parts = (np.take(padded, range(step, step + size), axis) for step in range(length))
    return np.asarray(sum(parts)) / length


def _grown(begun: np.ndarray, length: int, axis: int) -> np.ndarray:
    """Return where a hole lies: for an even length, it reaches farther to the front, as convolutions pad."""
    grown = begun.copy()
    for step in range(-(length // 2), (length - 1) // 2 + 1):
        low, high = max(0, step), min(0, step)
        ahead = [slice(None)] * begun.ndim
        behind = list(ahead)
        ahead[axis], behind[axis] = slice(low, high or None), slice(-high, -low or None)
        grown[tuple(ahead)] |= begun[tuple(behind)]
    return grown


def _drawn(box: Box, shape: Sequence[int], seed: int, draw: _Draw) -> np.ndarray:
    """Return random numbers for the voxels of a box, by what `draw` gives for each cube of the lattice."""
    cubes = [range(part.start // _CUBE, -(-part.stop // _CUBE)) for part in box]
    numbers = np.empty([part.stop - part.start for part in box], np.float32)
    for cube in product(*cubes):
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *cube])))
        size = tuple(min(_CUBE, n - _CUBE * at) for n, at in zip(shape, cube, strict=True))
        of_cube = draw(random, size)
        spans = [
            (max(part.start, at * _CUBE), min(part.stop, (at + 1) * _CUBE)) for part, at in zip(box, cube, strict=True)
        ]
        to = tuple(slice(a - part.start, b - part.start) for (a, b), part in zip(spans, box, strict=True))
        numbers[to] = of_cube[
            tuple(slice(a - at * _CUBE, b - at * _CUBE) for (a, b), at in zip(spans, cube, strict=True))
        ]
    return numbers


def _inner(read: Box, write: Box) -> Box:
    return tuple(slice(w.start - r.start, w.stop - r.start) for r, w in zip(read, write, strict=True))
