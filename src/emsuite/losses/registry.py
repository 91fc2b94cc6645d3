"""The losses by name.

To add a loss, write a function in a module of this package and name it in `LOSSES`. A loss takes the output of a head
and its target. It returns a scalar: the mean over the samples of the batch. The loss is 0 where no voxel counts.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from emsuite.losses.structural_similarity import dssim, ms_ssim
from emsuite.losses.target import HeadOutput, Target
from emsuite.losses.voxelwise import bce, dice, kl, mae, mse, weighted_mse

Loss = Callable[[HeadOutput, Target], Tensor]


def malis(output: HeadOutput, target: Target) -> Tensor:
    """Return the maximin affinity loss (Turaga et al. 2009), see `emsuite.losses.malis`."""
    from emsuite.losses.malis import malis_loss  # imports numba, which no other loss needs

    assert target.neighborhood is not None, "only affinities have a MALIS loss"
    samples = zip(output.values, target.values, target.weights, target.labels, strict=True)
    losses = [malis_loss(p, values, labels, target.neighborhood, weights) for p, values, weights, labels in samples]
    return torch.stack(losses).mean()


LOSSES: dict[str, Loss] = {
    "weighted_mse": weighted_mse,
    "bce": bce,
    "malis": malis,
    "mae": mae,
    "mse": mse,
    "kl": kl,
    "dice": dice,
    "dssim": dssim,
    "ms_ssim": ms_ssim,
}
ONLY_AFFINITIES = {"malis"}
"""Losses that need the offsets of affinities."""
ONLY_SIGMOID = {"bce"}
"""Losses that are computed from the logits of a sigmoid."""

ON_HOST = {"malis"}
"""Losses that a GPU cannot compute alone: they compute on the host."""


def check_name(name: str) -> str:
    """Return `name`; raise ValueError if no loss has this name."""
    if name not in LOSSES:
        raise ValueError(f"no loss '{name}'; there are {', '.join(LOSSES)}")
    return name
