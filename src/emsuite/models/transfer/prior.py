"""A trained network, cut at a named layer, whose features a discriminator reads: frozen, without gradient."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from emsuite.common.arrays import Shape
from emsuite.common.errors import BadInput
from emsuite.models.aligned import forced
from emsuite.models.crop import centre_crop


class _Reached(Exception):
    """The layer has its output; the rest of the network need not run."""


class FrozenPrior(nn.Module):
    """The output of one layer of a trained network, cropped at its centre to the size that is asked for.

    The network is no part of the state dictionary, nor of the parameters that are trained: the discriminator's
    checkpoints do not hold it. It moves between devices with the module around it.
    """

    def __init__(self, network: nn.Module, layer: str, channels: int):
        """Take `network` into use as it is, in evaluation mode.

        Args:
            network: reads (N, C, Z, Y, X).
            layer: the name of one of its modules, as `unet.layer_2_left_1`.
            channels: channels of this module's output.

        Raises:
            BadInput: the network has no such layer.
        """
        super().__init__()
        names = [name for name, _ in network.named_modules() if name]
        if layer not in names:
            raise BadInput(f"prior.layer: the network has no layer '{layer}'; expected one of {', '.join(names)}")
        self._network = [network.eval().requires_grad_(False)]  # in a list, so that it is no submodule
        self.layer, self.channels = layer, channels

    def _apply(self, fn: Any, recurse: bool = True) -> "FrozenPrior":
        self._network[0]._apply(fn)
        return super()._apply(fn, recurse)

    def forward(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """Return the features (N, channels, *shape) for (N, C, Z, Y, X).

        A larger output of the layer is cropped at its centre. No gradient goes to the network, but one goes through it
        to `x`, which a generator learns from.

        Raises:
            BadInput: the output has other channels, is smaller, or is larger by an odd number of voxels.
        """
        features = self._features(x)
        sizes, wanted = tuple(features.shape[2:]), tuple(shape)
        if features.shape[1] != self.channels:
            raise BadInput(
                f"prior.channels holds {self.channels}, but the layer '{self.layer}' has {features.shape[1]}; "
                "expected the same"
            )
        if len(sizes) != 3 or any(n < m or (n - m) % 2 for n, m in zip(sizes, wanted, strict=True)):
            raise BadInput(
                f"prior.layer: '{self.layer}' yields {_text(sizes)} voxels for an input of {_text(x.shape[2:])}, "
                f"expected {_text(wanted)}, or more by an even number along each axis"
            )
        return centre_crop(features, wanted)

    def check(self, input_shape: Shape, shape: Shape, in_channels: int = 1) -> None:
        """Run the network on zeros.

        Raises:
            BadInput: as `forward`, or the network cannot read the input, or voxels of the layer are not 4 of the input
                wide along the axes that `shape` is smaller along: others would lie beside the discriminator's own.
        """
        weight = next(self._network[0].parameters())
        small, large = (
            torch.zeros((1, in_channels, *sizes), dtype=weight.dtype, device=weight.device)
            for sizes in (input_shape, [n + 8 * (n != m) for n, m in zip(input_shape, shape, strict=True)])
        )
        with torch.no_grad():
            self(small, shape)
            sizes = [tuple(self._features(x).shape[2:]) for x in (small, large)]
        if any(b - a != 2 * (n != m) for a, b, n, m in zip(*sizes, input_shape, shape, strict=True)):
            raise BadInput(
                f"prior.layer: '{self.layer}' yields {_text(sizes[0])} voxels for an input of {_text(small.shape[2:])} "
                f"and {_text(sizes[1])} for {_text(large.shape[2:])}, expected voxels 4 wide"
            )

    def _features(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            kept.append(output)
            raise _Reached

        handle = self._network[0].get_submodule(self.layer).register_forward_hook(keep)
        try:
            with forced(False):  # layers that run with padded channels are not called as modules
                self._network[0](x)
        except _Reached:
            return kept[0]
        except RuntimeError as error:
            raise BadInput(f"prior: its network cannot read an input of {_text(x.shape[1:])}: {error}") from None
        finally:
            handle.remove()
        raise BadInput(f"prior.layer: the network does not run '{self.layer}', expected one that it does")


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
