"""What a loss compares: the output of a head with its target."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class HeadOutput:
    """The output of one head for a batch, before and behind its activation."""

    logits: Tensor
    """(B, C, Z, Y, X) float32, before the activation."""
    activate: Callable[[Tensor], Tensor]
    """The activation of the head, as `Head.activate`."""

    @cached_property
    def values(self) -> Tensor:
        """(B, C, Z, Y, X) float32 behind the activation, computed once and only if a loss asks for it."""
        return self.activate(self.logits)

    def keep_gradient(self) -> None:
        """Have the backward pass that follows keep what `gradient` tells; call it behind the loss."""
        self.logits.retain_grad()
        self.values.retain_grad()

    @property
    def gradient(self) -> Tensor | None:
        """The gradient of the loss with respect to `values`, as `values`; None unless it was kept.

        It is 0 where a loss was computed from logits and the activation is saturated: no number would be right there.
        """
        if not self.logits.retains_grad:
            return None
        if self.values.grad is not None or self.logits.grad is None:
            return self.values.grad
        with torch.enable_grad():
            logits = self.logits.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.activate(logits).sum(), logits)
        return torch.where(slope > 0, self.logits.grad / slope, 0)


@dataclass(frozen=True)
class Target:
    """The values that a head should predict for a batch."""

    values: Tensor
    """(B, C, Z, Y, X) float32, in the range of the head's activation."""
    weights: Tensor
    """As `values`; 0 where a voxel does not count."""
    labels: Tensor
    """(B, Z, Y, X) int32, the labels that `values` were computed from."""
    neighborhood: Sequence[Sequence[int]] | None = None
    """Offsets of the channels in voxels; None for targets other than affinities."""
