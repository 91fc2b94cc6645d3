"""What one tile yields, by head: on its device, and on the way to the host."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from emsuite.common.errors import RunFailed


class Outputs(NamedTuple):
    """What a tile yields, by head."""

    values: dict[str, Tensor]
    """`(C, Z, Y, X)` of the type that is stored, or float32."""
    finite: dict[str, Tensor]
    """Whether no value is NaN, one boolean or number."""

    def each(self, change: Callable[[Tensor], Tensor]) -> "Outputs":
        """Return the same with every tensor changed."""
        return Outputs(*({name: change(tensor) for name, tensor in part.items()} for part in self))


@dataclass(frozen=True)
class Predicted:
    """The prediction of one tile. On a GPU the copy to the host may still be running."""

    values: dict[str, Tensor]
    finite: dict[str, Tensor]
    ready: "torch.cuda.Event | None"

    def arrays(self) -> dict[str, np.ndarray]:
        """Wait for the copy, then return `(C, Z, Y, X)` per head.

        Returns:
            values as they are stored, see `Head.stored_as`; float32 where the outputs of tiles are blended.

        Raises:
            RunFailed: the network yields NaN.
        """
        if self.ready is not None:
            self.ready.synchronize()
        for name, finite in self.finite.items():
            if not bool(finite):
                raise RunFailed(f"prediction of {name}: NaN from the network; its weights are broken")
        return {name: values.numpy() for name, values in self.values.items()}
