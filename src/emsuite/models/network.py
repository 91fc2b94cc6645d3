"""From raw to the logits of all heads in one step: a U-Net with heads, or two of them in a row (autocontext).

    raw [-1, 1]  ->  UNet  ->  1x1x1 convolution per head  ->  {"lsds": logits, "affs": logits}

    raw  ->  frozen LSD network  ->  sigmoid  ->  uint8  ->  [cropped raw,] LSDs  ->  UNet  ->  heads

Source: Sheridan et al. 2022, funkelab/lsd_nm_experiments (mknet and the autocontext training pipelines).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from emsuite.common.arrays import Shape
from emsuite.common.errors import BadInput
from emsuite.models.crop import centre_crop
from emsuite.models.receptive_field import ReceptiveField, output_shape, receptive_field
from emsuite.models.transfer.generator import Generator
from emsuite.models.unet import UNet, head_layer
from emsuite.models.unet_settings import UNetSettings
from emsuite.models.upsample import Interpolate, Upsample

_FARTHEST = 50.0  # no normalization puts so many grey values so far out; raw that was not normalized reaches 255
_FINAL: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softmax": lambda x: torch.softmax(x, dim=1),
}
AnyModule = TypeVar("AnyModule", bound=nn.Module)
logger = logging.getLogger(__name__)


class Network(nn.Module):
    """A U-Net with one last convolution per head."""

    def __init__(self, unet: UNetSettings, in_channels: int, heads: Mapping[str, int]):
        """Build the layers with fresh weights from torch's random state.

        Args:
            unet: the architecture.
            in_channels: channels of the input.
            heads: channels of each head, by name.
        """
        super().__init__()
        self.settings = unet
        self._warned = False
        self.unet = UNet(unet, in_channels)
        self.heads = nn.ModuleDict({name: head_layer(unet, channels) for name, channels in heads.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the logits of each head, `(N, channels, Z', Y', X')`, for an input `(N, C, Z, Y, X)` in [-1, 1].

        Outside training, on a CPU, a warning tells once of an input that was not normalized, as raw from 0 to 255.
        """
        # on a CPU alone: a GPU would wait for the answer, and shapes without values have none
        if x.device.type == "cpu" and not (self.training or self._warned or torch.compiler.is_compiling()):
            self._warn_of_raw(x)
        return self.logits(self.unet(x), list(self.heads))

    def logits(self, features: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Return the logits of the named heads for the features of `unet`, whose channels may be padded with zeros."""
        heads: dict[str, Any] = {name: self.heads[name] for name in names}
        activate = _FINAL[self.settings.final_activation]
        padded = features.shape[1] - self.settings.fmaps_last
        if not padded:
            return {name: activate(head(features)) for name, head in heads.items()}
        # one product for all heads
        weights, biases = zip(*((head.weight.flatten(1), head.bias) for head in heads.values()), strict=True)
        weight, bias = torch.cat(weights), torch.cat(biases)
        behind = (0, -len(bias) % 8)  # products of other sizes take several times as long
        weight = functional.pad(weight, (0, padded, *behind))
        joined = functional.linear(features.movedim(1, -1), weight, functional.pad(bias, behind)).movedim(-1, 1)
        parts = joined[:, : len(bias)].split([len(bias) for bias in biases], dim=1)
        return {name: activate(part) for name, part in zip(heads, parts, strict=True)}

    def _warn_of_raw(self, x: Tensor) -> None:
        reach = float(x.detach().abs().max()) if x.numel() else 0.0
        if reach > _FARTHEST:
            self._warned = True
            logger.warning(
                "the network's input reaches %.4g, expected normalized grey values, mostly in [-1, 1]: those of uint8 "
                "or of floats in [0, 1] after emsuite.data.normalization.normalized",
                reach,
            )

    @property
    def receptive_field(self) -> ReceptiveField:
        """How tiles of this network fit together."""
        return receptive_field(self.settings)

    def output_shape(self, input_shape: Sequence[int]) -> Shape:
        """Return the voxels of the output for those of the input; raise BadInput if the input does not fit."""
        return output_shape(self.settings, input_shape)


class AutocontextNetwork(nn.Module):
    """A network that reads the LSDs of a frozen network. Only the second network is trained and saved."""

    def __init__(self, frozen: Network, trained: Network, with_raw: bool, context_head: str = "lsds"):
        """Put `trained` behind `frozen`.

        Args:
            frozen: predicts LSDs from raw; its weights get no gradient.
            trained: reads the LSDs, ten channels.
            with_raw: whether `trained` reads raw as well, as its first channel.
            context_head: the head of `frozen` that predicts LSDs.
        """
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.trained = trained
        self.with_raw = with_raw
        self.context_head = context_head

    def forward(self, raw: Tensor) -> dict[str, Tensor]:
        """Return what `Network.forward` returns, for raw alone."""
        lsds = self.read_lsds(raw)
        channels = [centre_crop(raw, lsds.shape[2:])] if self.with_raw else []
        return self.trained(torch.cat([*channels, lsds.to(raw.dtype)], dim=1))

    def read_lsds(self, raw: Tensor) -> Tensor:
        """Return the LSDs that the second network reads for raw, (N, 10, Z', Y', X') float32, 0 to 1, in its middle."""
        with torch.no_grad():
            lsds = quantise(torch.sigmoid(self.frozen(raw)[self.context_head].float()))
        return centre_crop(lsds, self.trained_input_shape(raw.shape[2:]))

    def trained_input_shape(self, input_shape: Sequence[int]) -> Shape:
        """Return the largest legal input of the second network that fits into the LSDs of the frozen one."""
        lsds = self.frozen.output_shape(input_shape)
        shape = self.trained.receptive_field.largest_within(lsds)
        if any(n > m for n, m in zip(shape, lsds, strict=True)):
            raise BadInput(
                f"input shape {tuple(input_shape)}: {lsds} LSDs come out of it, the second network reads at least "
                f"{shape}; expected an input of at least {self.receptive_field.smallest}"
            )
        return shape

    @property
    def receptive_field(self) -> ReceptiveField:
        """How tiles of both networks in a row fit together."""
        return self.frozen.receptive_field.followed_by(self.trained.receptive_field)

    def output_shape(self, input_shape: Sequence[int]) -> Shape:
        """As `Network.output_shape`, for both networks in a row."""
        return self.trained.output_shape(self.trained_input_shape(input_shape))

    def train(self, mode: bool = True) -> "AutocontextNetwork":
        """Set the training mode of the second network; the frozen network stays in evaluation mode."""
        super().train(mode)
        self.frozen.eval()
        return self


AnyNetwork = Network | AutocontextNetwork | Generator
"""What predicts: logits by head for a volume, and how tiles of it fit together."""


def trained_part(network: AutocontextNetwork | AnyModule) -> Network | AnyModule:
    """Return the part whose weights are trained and saved."""
    return network.trained if isinstance(network, AutocontextNetwork) else network


def is_local(network: AnyNetwork) -> bool:
    """Return whether outputs depend on the voxels around them alone, so that tiles can meet without a seam."""
    return not isinstance(network, Generator) or network.is_local


def moved(network: nn.Module, device: torch.device) -> None:
    """Move a network to `device`, with kernels in the order in which images are: channels last."""
    orders = {4: torch.channels_last, 5: torch.channels_last_3d}  # a 2-D discriminator may read a 3-D network

    def placed(weight: Tensor) -> Tensor:
        return weight.to(device, memory_format=orders.get(weight.ndim, torch.preserve_format))

    network._apply(placed)


def draw_glorot_weights(network: nn.Module) -> None:
    """Draw all kernels anew from Glorot's uniform distribution, from torch's random state, and set all biases to 0.

    As TensorFlow 1 does by default, so as the published networks began: within +-sqrt(6 / (fan in + fan out)), where a
    fan is the number of channels times that of the kernel's voxels, also of transposed convolutions (Glorot and Bengio
    2010, equation 16). Normalisation layers stay as they are.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d | Upsample | Interpolate):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def quantise(x: Tensor) -> Tensor:
    """Return floats in [0, 1] as the originals stored them between two networks: 255 x, truncated, divided by 255."""
    return (x * 255.0).floor() / 255.0
