"""From raw to predictions in one step: a U-Net with heads, or two of them in a row (autocontext).

    raw [-1, 1]  ->  UNet  ->  1x1x1 convolution per head  ->  sigmoid  ->  {"lsds": ..., "affs": ...}

    raw  ->  frozen LSD network  ->  uint8  ->  [cropped raw,] LSDs  ->  UNet  ->  heads

Source: Sheridan et al. 2022, funkelab/lsd_nm_experiments (mknet and the autocontext training pipelines).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from emsuite.common.arrays import Shape
from emsuite.common.errors import BadInput
from emsuite.config.network import NetworkConfig
from emsuite.models.receptive_field import ReceptiveField, output_shape, receptive_field
from emsuite.models.unet import UNet, centre_crop, head_layer


class Network(nn.Module):
    """A U-Net and its heads, built from a network's configuration; reads what `config.in_channels` says."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.config = config
        self.unet = UNet(config.unet, config.in_channels)
        self.heads = nn.ModuleDict(
            {name: head_layer(config.unet, head.channels) for name, head in config.heads.items()}
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """`(N, C, Z, Y, X)` float, raw in [-1, 1] -> logits per head, `(N, channels, Z', Y', X')`."""
        features = self.unet(x)
        return {name: head(features) for name, head in self.heads.items()}

    @property
    def receptive_field(self) -> ReceptiveField:
        """How tiles of this network fit together."""
        return receptive_field(self.config.unet)

    def output_shape(self, input_shape: Sequence[int]) -> Shape:
        """Voxels that come out of that many going in; raises BadInput if they do not fit."""
        return output_shape(self.config.unet, input_shape)


class AutocontextNetwork(nn.Module):
    """A network that reads the LSDs of a frozen one; only the second is trained and saved."""

    def __init__(self, config: NetworkConfig, frozen: Network):
        super().__init__()
        self.config = config
        self.frozen = frozen.requires_grad_(False)
        self.trained = Network(config)

    def forward(self, raw: Tensor) -> dict[str, Tensor]:
        """As `Network.forward`, from raw alone."""
        with torch.no_grad():
            lsds = quantise(torch.sigmoid(self.frozen(raw)["lsds"].float()))
        shape = self.trained_input_shape(raw.shape[2:])
        assert self.config.autocontext is not None
        context = [centre_crop(raw, shape)] if self.config.autocontext.with_raw else []
        return self.trained(torch.cat([*context, centre_crop(lsds, shape).to(raw.dtype)], dim=1))

    def trained_input_shape(self, input_shape: Sequence[int]) -> Shape:
        """The largest legal input of the second network that the first one's output holds."""
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
        return self.frozen.receptive_field.then(self.trained.receptive_field)

    def output_shape(self, input_shape: Sequence[int]) -> Shape:
        """As `Network.output_shape`, of both networks in a row."""
        return self.trained.output_shape(self.trained_input_shape(input_shape))

    def train(self, mode: bool = True) -> "AutocontextNetwork":
        """Set the training mode of the second network; the first stays frozen."""
        super().train(mode)
        self.frozen.eval()
        return self


AnyNetwork = Network | AutocontextNetwork


def trained_part(network: AnyNetwork) -> Network:
    """The part whose weights are trained and saved."""
    return network.trained if isinstance(network, AutocontextNetwork) else network


def quantise(x: Tensor) -> Tensor:
    """[0, 1] floats as the uint8 the originals stored between networks: times 255, truncated, divided by 255."""
    return (x * 255.0).floor() / 255.0


def probabilities(logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The heads' predictions in [0, 1], float32."""
    return {name: torch.sigmoid(x.float()) for name, x in logits.items()}
