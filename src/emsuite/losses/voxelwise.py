"""Losses that compare each voxel with its target: squared error and cross entropy."""

from torch import Tensor
from torch.nn import functional

from emsuite.losses.target import HeadOutput, Target


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


def _mean(terms: Tensor, weights: Tensor) -> Tensor:
    # The samples of one batch may lie on several GPUs, so each sample is averaged on its own.
    return (terms.flatten(1).sum(1) / weights.flatten(1).count_nonzero(1).clamp(min=1)).mean()
