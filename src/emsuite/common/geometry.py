"""Positions and regions along the axes of space: z y x, or y x.

    Coordinate(4.6, 4, 4) * 10     ->  (46, 40, 40)
    Roi((0, 0, 0), (460, 400, 400)).shape / Coordinate(4.6, 4, 4)    ->  (100, 100, 100)

Numbers are exact: integers, or fractions of them such as 23/5 for 4.6 nm. Floats would not do: 100 voxels of 4.6 nm
end at 459.99999999999994 nm, beside the grid. The names are those of funlib.geometry, which counts in integers alone.
"""

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral
from typing import Any

Number = int | Fraction

_NEAR = Fraction(1, 1000)
_DIGITS = 7
"""Of floats that stand for voxel sizes: as many as float32 has, in which some formats store them."""


def exact(value: Any) -> Number:
    """Return a number exactly, as an integer if it is whole; of a float, the decimal number that it is printed as."""
    if type(value) is int:  # nearly always; the question below takes ten times as long
        return value
    if isinstance(value, Integral):  # Python's and NumPy's
        return int(value)
    number = value if isinstance(value, Fraction) else Fraction(str(float(value)))
    return int(number) if number.denominator == 1 else number


def rounded(value: Any, digits: int = _DIGITS) -> Number:
    """Return a number of `digits` significant digits, exactly: 4.6 for the float32 next to it, 4.599999904632568."""
    return exact(value) if exact(value) == int(exact(value)) else exact(float(f"{float(value):.{digits}g}"))


def json_numbers(numbers: Iterable[Any]) -> list[int | float]:
    """Return numbers as JSON knows them: integers where they are whole, else floats."""
    return [number if isinstance(number, int) else float(number) for number in map(exact, numbers)]


def on_grid(position: "Coordinate", voxel_size: "Coordinate", origin: "Coordinate | None" = None) -> "Coordinate":
    """Return a position (nm) on the grid of voxels from `origin` (default: 0), if it lies within 1/1000 voxel of it."""
    origin = voxel_size * 0 if origin is None else origin
    voxels = [(p - o) / Fraction(v) for p, o, v in zip(position, origin, voxel_size, strict=True)]
    near = (round(n) if abs(n - round(n)) <= _NEAR else n for n in voxels)
    return origin + voxel_size * Coordinate(near)


class Coordinate(tuple[Any, ...]):
    """A number per axis. Arithmetic is element by element, with another coordinate, any other sequence, or a number."""

    def __new__(cls, *numbers: Any) -> "Coordinate":
        """Take numbers, or one sequence of them; floats count as the decimal numbers that they are printed as."""
        given = numbers[0] if len(numbers) == 1 and isinstance(numbers[0], Iterable) else numbers
        return super().__new__(cls, map(exact, given))

    @classmethod
    def _of(cls, numbers: list[Any]) -> "Coordinate":
        """Take results of arithmetic, nearly always integers, which need no second look."""
        return super().__new__(cls, numbers if all(type(n) is int for n in numbers) else map(exact, numbers))

    @property
    def dims(self) -> int:
        """The number of axes."""
        return len(self)

    def __add__(self, other: Any) -> "Coordinate":
        return self._with(operator.add, other)

    def __sub__(self, other: Any) -> "Coordinate":
        return self._with(operator.sub, other)

    def __mul__(self, other: Any) -> "Coordinate":
        return self._with(operator.mul, other)

    def __truediv__(self, other: Any) -> "Coordinate":
        return self._with(Fraction, other)

    def __floordiv__(self, other: Any) -> "Coordinate":
        return self._with(operator.floordiv, other)

    def __mod__(self, other: Any) -> "Coordinate":
        return self._with(operator.mod, other)

    def __neg__(self) -> "Coordinate":
        return self * -1

    def __repr__(self) -> str:
        return f"({', '.join(map(str, json_numbers(self)))})"

    def _with(self, operation: Callable[[Any, Any], Any], other: Any) -> "Coordinate":
        if type(other) is not Coordinate:
            other = [exact(n) for n in other] if isinstance(other, Sequence) else [exact(other)] * len(self)
        return Coordinate._of([operation(a, b) for a, b in zip(self, other, strict=True)])


@dataclass(frozen=True)
class Roi:
    """A region: its first position, and its extent along each axis. What it counts, voxels or nm, its owner says."""

    offset: Coordinate
    shape: Coordinate

    def __init__(self, offset: Iterable[Any], shape: Iterable[Any]) -> None:
        for name, numbers in (("offset", offset), ("shape", shape)):
            object.__setattr__(self, name, numbers if type(numbers) is Coordinate else Coordinate(*numbers))
        if len(self.offset) != len(self.shape):
            raise ValueError(f"an offset of {len(self.offset)} axes and a shape of {len(self.shape)}")

    @property
    def begin(self) -> Coordinate:
        """The first position, as `offset`."""
        return self.offset

    @property
    def end(self) -> Coordinate:
        """The position behind the last."""
        return self.offset + self.shape

    @property
    def dims(self) -> int:
        """The number of axes."""
        return len(self.offset)

    @property
    def empty(self) -> bool:
        """Whether nothing lies inside."""
        return min(self.shape) <= 0

    def contains(self, other: "Roi") -> bool:
        """Return whether all of `other` lies inside; an empty one does if its begin does not lie outside."""
        return all(b <= x and y <= e for b, x, y, e in zip(self.begin, other.begin, other.end, self.end, strict=True))

    def intersects(self, other: "Roi") -> bool:
        """Return whether both share a position."""
        return not self.intersect(other).empty

    def intersect(self, other: "Roi") -> "Roi":
        """Return the region that both share; an empty one if they share none."""
        begin = [max(a, b) for a, b in zip(self.begin, other.begin, strict=True)]
        end = [min(a, b) for a, b in zip(self.end, other.end, strict=True)]
        return Roi(begin, [max(0, e - b) for b, e in zip(begin, end, strict=True)])

    def union(self, other: "Roi") -> "Roi":
        """Return the smallest region that contains both."""
        begin = Coordinate(min(a, b) for a, b in zip(self.begin, other.begin, strict=True))
        return Roi(begin, Coordinate(max(a, b) for a, b in zip(self.end, other.end, strict=True)) - begin)

    def grow(self, before: Sequence[Any], behind: Sequence[Any]) -> "Roi":
        """Return the region with more in front of and behind it."""
        return Roi(self.begin - before, self.shape + before + behind)

    def to_slices(self) -> tuple[slice, ...]:
        """Return the slices of an array that a region in voxels describes."""
        return tuple(slice(int(b), int(e)) for b, e in zip(self.begin, self.end, strict=True))

    def __add__(self, shift: Any) -> "Roi":
        return Roi(self.offset + shift, self.shape)

    def __sub__(self, shift: Any) -> "Roi":
        return Roi(self.offset - shift, self.shape)

    def __str__(self) -> str:
        ranges = (f"{b}:{e}" for b, e in zip(json_numbers(self.begin), json_numbers(self.end), strict=True))
        return f"[{', '.join(ranges)}] {self.shape}"
