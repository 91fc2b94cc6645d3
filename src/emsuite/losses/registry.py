"""The losses by name. A new one is a function here and its name in `LOSSES`.

Each takes a head's logits `(B, C, Z, Y, X)` float32 and its target, and returns a scalar, the mean over the
samples, 0 where no voxel counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Target:
    """What a head should predict, for a batch."""

    values: Tensor
    """(B, C, Z, Y, X) float32 in [0, 1]"""
    weights: Tensor
    """as `values`, 0 where a voxel does not count"""
    labels: Tensor
    """(B, Z, Y, X) int32 that the values were made from"""
    neighborhood: Sequence[Sequence[int]] | None = None
    """offsets of the channels in voxels, of affinities"""


Loss = Callable[[Tensor, Target], Tensor]


def weighted_mse(logits: Tensor, target: Target) -> Tensor:
    """sum(w (p - t)^2) / count(w != 0) of each sample, p being the sigmoid of the logits.

    Source: tf.losses.mean_squared_error, as the published networks used it.
    """
    squares = (logits.sigmoid() - target.values).square()
    return _mean(squares * target.weights, target.weights)


def bce(logits: Tensor, target: Target) -> Tensor:
    """Binary cross entropy of the logits, weighted and averaged as `weighted_mse`; learns faster early on."""
    entropy = functional.binary_cross_entropy_with_logits(logits, target.values, target.weights, reduction="none")
    return _mean(entropy, target.weights)


def malis(logits: Tensor, target: Target) -> Tensor:
    """Maximin affinity learning (Turaga et al. 2009), see `emsuite.losses.malis`."""
    from emsuite.losses.malis import malis_loss  # and numba with it, which no other loss needs

    assert target.neighborhood is not None, "only affinities have a MALIS loss"
    parts = zip(logits.sigmoid(), target.values, target.weights, target.labels, strict=True)
    losses = [malis_loss(p, values, labels, target.neighborhood, weights) for p, values, weights, labels in parts]
    return torch.stack(losses).mean()


def _mean(terms: Tensor, weights: Tensor) -> Tensor:
    # a sample's share must not depend on the others it is trained with: they may lie on other GPUs
    return (terms.flatten(1).sum(1) / weights.flatten(1).count_nonzero(1).clamp(min=1)).mean()


LOSSES: dict[str, Loss] = {"weighted_mse": weighted_mse, "bce": bce, "malis": malis}
ONLY_AFFINITIES = {"malis"}


def check_name(name: str) -> str:
    """The name itself; raises ValueError if no loss bears it."""
    if name not in LOSSES:
        raise ValueError(f"no loss '{name}'; there are {', '.join(LOSSES)}")
    return name
