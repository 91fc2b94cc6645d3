"""The types of options that click lacks: three whole numbers, lengths in nm, and a number of workers."""

import math
from typing import Any

import click

_MOST = 1_000_000_000
_MOST_WORKERS = 1024
_FARTHEST = 2.0**53  # nm


def shortened(value: Any) -> str:
    """Return a value for a message, in quotes, cut after 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."


class Voxels(click.ParamType):
    """Three whole numbers as `z,y,x`, above 0, or from 0 on."""

    name = "z,y,x"

    def __init__(self, with_zero: bool = False):
        self._with_zero = with_zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return the numbers as a tuple."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != 3 or min(numbers) < (0 if self._with_zero else 1):
            above = "from 0 on, as 4,40,40" if self._with_zero else "above 0, as 60,270,270"
            self.fail(f"{shortened(value)}: expected three whole numbers {above}", param, ctx)
        if max(numbers) > _MOST:
            self.fail(f"{shortened(value)}: expected three whole numbers up to {_MOST}", param, ctx)
        return numbers


class Lengths(click.ParamType):
    """Three lengths above 0 in nm as `z,y,x`; whole numbers stay integers."""

    name = "z,y,x"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int | float, ...]:
        """Return the numbers as a tuple."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != 3 or not all(0 < number <= _MOST for number in numbers):
            self.fail(f"{shortened(value)}: expected three lengths in nm, above 0, as 60,270,270", param, ctx)
        return tuple(int(number) if number == int(number) else number for number in numbers)


class Nanometres(click.ParamType):
    """Three lengths as `z,y,x`, or `NAME=z,y,x` for the volume that the option `--NAME` gives."""

    name = "[name=]z,y,x"

    def __init__(self, above_zero: bool):
        self._above_zero = above_zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, list[float]]:
        """Return the name, or nothing, and the lengths."""
        if isinstance(value, tuple):
            return value
        name, _, text = str(value).rpartition("=")
        try:
            numbers = [float(part) for part in text.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) != 3 or not all(math.isfinite(number) and abs(number) <= _FARTHEST for number in numbers):
            self.fail(f"{shortened(value)}: expected three lengths in nm, as 40,4.6,4.6", param, ctx)
        if self._above_zero and min(numbers) <= 0:
            self.fail(f"{shortened(value)}: expected three lengths above 0 nm, as 40,4.6,4.6", param, ctx)
        return name.replace("-", "_"), [int(number) if number.is_integer() else number for number in numbers]


class Workers(click.ParamType):
    """A number of processes, or the word `slurm`."""

    name = "number|slurm"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Return the number, or the word."""
        if value == "slurm" or (isinstance(value, int) and 1 <= value <= _MOST_WORKERS):
            return value
        if not (str(value).isdecimal() and len(str(value)) < 10 and 1 <= int(value) <= _MOST_WORKERS):
            self.fail(f"{shortened(value)}: expected a number above 0 (at most {_MOST_WORKERS}), or slurm", param, ctx)
        return int(value)
