"""The losses by name. A new one is a function here and its name in `LOSSES`.

Each takes a head's logits `(B, C, Z, Y, X)` float32 and its target, and returns a scalar, 0 where no voxel counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from emsuite.malis import malis_loss


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
    """sum(w (p - t)^2) / count(w != 0), p being the sigmoid of the logits.

    Source: tf.losses.mean_squared_error, as the published networks used it.
    """
    squares = (logits.sigmoid() - target.values).square()
    return (squares * target.weights).sum() / target.weights.count_nonzero().clamp(min=1)


def bce(logits: Tensor, target: Target) -> Tensor:
    """Binary cross entropy of the logits, weighted and averaged as `weighted_mse`; learns faster early on."""
    total = functional.binary_cross_entropy_with_logits(logits, target.values, target.weights, reduction="sum")
    return total / target.weights.count_nonzero().clamp(min=1)


def malis(logits: Tensor, target: Target) -> Tensor:
    """Maximin affinity learning (Turaga et al. 2009), see `emsuite.malis`; the batch's losses are added up."""
    assert target.neighborhood is not None, "only affinities have a MALIS loss"
    parts = zip(logits.sigmoid(), target.values, target.weights, target.labels, strict=True)
    losses = [malis_loss(p, values, labels, target.neighborhood, weights) for p, values, weights, labels in parts]
    return sum(losses[1:], losses[0])


LOSSES: dict[str, Loss] = {"weighted_mse": weighted_mse, "bce": bce, "malis": malis}
ONLY_AFFINITIES = {"malis"}


def check_name(name: str) -> str:
    """The name itself; raises ValueError if no loss bears it."""
    if name not in LOSSES:
        raise ValueError(f"no loss '{name}'; there are {', '.join(LOSSES)}")
    return name
