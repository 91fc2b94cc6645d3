"""What a loss compares: the output of a head with its target."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

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
