"""The types of options that click lacks: three whole numbers, and a number of workers."""

from typing import Any

import click


class Voxels(click.ParamType):
    """Three whole numbers above 0 as `z,y,x`."""

    name = "z,y,x"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return the numbers as a tuple."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != 3 or min(numbers) < 1:
            self.fail(f"{value!r}: expected three whole numbers above 0, as 60,270,270", param, ctx)
        return numbers


class Workers(click.ParamType):
    """A number of processes, or the word `slurm`."""

    name = "number|slurm"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Return the number, or the word."""
        if value == "slurm" or (isinstance(value, int) and value >= 1):
            return value
        if not (str(value).isdigit() and int(value) >= 1):
            self.fail(f"{value!r}: expected a number above 0, or slurm", param, ctx)
        return int(value)
