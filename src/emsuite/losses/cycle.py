"""Losses of cycles and identities: how far an image is from the one that it should equal.

To add a loss, write a function here and name it in `CYCLE`.
"""

from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator
from torch import Tensor

_LEAST = 1e-7
"""The smallest value that the focal form takes the logarithm of."""


def l1(image: Tensor, target: Tensor) -> Tensor:
    """Return the mean of |a - b|."""
    return (image - target).abs().mean()


def focal(image: Tensor, target: Tensor) -> Tensor:
    """Return the mean of (1 - p)^2 (-ln p) with p = 1 - |a - b| / 2, as transfer_em has it.

    p is at least 1e-7 in the logarithm alone: images more than 2 apart still have a gradient. The loss is about
    |a - b|^3 / 8 for images that are alike, so it cares for large differences.
    """
    apart = (image - target).abs() / 2.0
    return (apart.square() * -(1.0 - apart).clamp(min=_LEAST).log()).mean()


CYCLE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l1": l1, "focal": focal}


def check_name(name: str) -> str:
    """Return `name`; raise ValueError if no loss of cycles has this name."""
    if name not in CYCLE:
        raise ValueError(f"no loss of cycles '{name}'; there are {', '.join(CYCLE)}")
    return name


CycleLoss = Annotated[str, AfterValidator(check_name)]
"""The name of a loss of cycles, as a setting."""
