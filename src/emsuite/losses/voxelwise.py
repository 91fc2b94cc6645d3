"""Losses that compare each voxel with its target: errors, cross entropy, divergence, and overlap (dice).

`weighted_mse` and `bce` divide by the number of voxels with a weight, all others by the sum of the weights. For a mask
of 0 and 1 both are the same.
"""

import torch
from torch import Tensor
from torch.nn import functional

from emsuite.losses.target import HeadOutput, Target

_LEAST = 1e-7
"""The smallest probability."""


def weighted_mse(output: HeadOutput, target: Target) -> Tensor:
    """Return the mean over samples of sum(w (p - t)^2) / count(w != 0), with p behind the activation.

    Source: tf.losses.mean_squared_error, as the published networks used it.
    """
    squares = (output.values - target.values).square()
    return _mean(squares * target.weights, target.weights)


def bce(output: HeadOutput, target: Target) -> Tensor:
    """Return the binary cross entropy, weighted and averaged as in `weighted_mse`.

    It is computed from the logits of a sigmoid head, so that its gradient does not vanish where the sigmoid saturates.
    It learns faster than `weighted_mse` in the first iterations.
    """
    entropy = functional.binary_cross_entropy_with_logits(
        output.logits, target.values, target.weights, reduction="none"
    )
    return _mean(entropy, target.weights)


def mae(output: HeadOutput, target: Target) -> Tensor:
    """Return the mean over samples of sum(w |p - t|) / sum(w)."""
    return weighted_mean((output.values - target.values).abs(), target.weights).mean()


def mse(output: HeadOutput, target: Target) -> Tensor:
    """Return the mean over samples of sum(w (p - t)^2) / sum(w)."""
    return weighted_mean((output.values - target.values).square(), target.weights).mean()


def kl(output: HeadOutput, target: Target) -> Tensor:
    """Return the Kullback-Leibler divergence of the prediction from the target, two distributions over the channels.

    It is the mean over samples and voxels of sum(t log(t / p)) over channels, both clipped to [1e-7, 1], as Keras has
    it; the weight of a voxel is the mean of those of its channels.
    """
    p, t = output.values.clamp(_LEAST, 1.0), target.values.clamp(_LEAST, 1.0)
    return weighted_mean((t * (t / p).log()).sum(1, keepdim=True), target.weights.mean(1, keepdim=True)).mean()


def dice(output: HeadOutput, target: Target) -> Tensor:
    """Return the mean over samples of 1 - (2 sum(w p t) + 1) / (sum(w p) + sum(w t) + 1), for values in [0, 1].

    Source: Milletari et al. 2016, "V-Net", with the sums of Sudre et al. 2017.
    """
    p, t, w = (x.flatten(1) for x in (output.values, target.values, target.weights))
    both, either = (w * p * t).sum(1), (w * p).sum(1) + (w * t).sum(1)
    return (1.0 - (2.0 * both + 1.0) / (either + 1.0)).mean()


def weighted_mean(terms: Tensor, weights: Tensor) -> Tensor:
    """Return sum(w x) / sum(w) of each sample, (B,); 0 for samples without weight.

    Args:
        terms: (B, ...) float.
        weights: the same shape, not negative.
    """
    total = weights.flatten(1).sum(1)
    return (terms * weights).flatten(1).sum(1) / torch.where(total > 0, total, 1.0)


def _mean(terms: Tensor, weights: Tensor) -> Tensor:
    # The samples of one batch may lie on several GPUs, so each sample is averaged on its own.
    return (terms.flatten(1).sum(1) / weights.flatten(1).count_nonzero(1).clamp(min=1)).mean()
