"""Losses of generators and discriminators: how far logits are from `real` or from `fake`.

A discriminator learns `(loss(d(real), True) + loss(d(fake), False)) / 2`, a generator `loss(d(fake), True)`.

To add a loss, write a function here and name it in `ADVERSARIAL`.
"""

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import AfterValidator
from torch import Tensor
from torch.nn import functional

_GAMMA = 2
"""The exponent that plays down what is judged right already."""


def lsgan(logits: Tensor, real: bool) -> Tensor:
    """Return the mean of (logit - 1)^2 for real, of logit^2 for fake (Mao et al. 2017)."""
    return (logits - 1.0).square().mean() if real else logits.square().mean()


def bce(logits: Tensor, real: bool) -> Tensor:
    """Return the mean binary cross entropy, -ln p for real and -ln(1 - p) for fake, p = sigmoid(logit)."""
    return functional.softplus(_against(logits, real)).mean()


def focal(logits: Tensor, real: bool) -> Tensor:
    """Return the mean of (1 - p)^2 (-ln p), p = sigmoid(logit) for real and 1 - sigmoid(logit) for fake.

    Lin et al. 2017 with gamma 2 and alpha 0.5, times 2, as transfer_em has it.
    """
    against = _against(logits, real)
    return (torch.sigmoid(against) ** _GAMMA * functional.softplus(against)).mean()


def _against(logits: Tensor, real: bool) -> Tensor:
    """Return the logits of the wrong answer."""
    return -logits if real else logits


ADVERSARIAL: dict[str, Callable[[Tensor, bool], Tensor]] = {"lsgan": lsgan, "bce": bce, "focal": focal}


def check_name(name: str) -> str:
    """Return `name`; raise ValueError if no adversarial loss has this name."""
    if name not in ADVERSARIAL:
        raise ValueError(f"no adversarial loss '{name}'; there are {', '.join(ADVERSARIAL)}")
    return name


AdversarialLoss = Annotated[str, AfterValidator(check_name)]
"""The name of an adversarial loss, as a setting."""
