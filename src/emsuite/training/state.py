"""What training changes from one checkpoint to the next."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from emsuite.data.normalization import GreyScale
from emsuite.models.network import AnyNetwork, trained_part

NETWORK = "network"
"""The name of the network in a state or checkpoint that holds one alone."""


@dataclass
class TrainingState:
    """Everything that training changes.

    A checkpoint holds all of it, so that a resumed run continues as if it had never been stopped. Kinds of training
    with several networks or optimizers name each; supervised training calls its only network `network`.
    """

    networks: dict[str, AnyNetwork]
    optimizers: dict[str, torch.optim.Optimizer]
    averages: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """The running average of each network's weights; empty without averaging."""
    iteration: int = 0
    frozen_digest: str | None = None
    """The digest of the frozen network's weights, in an autocontext network."""
    forwards: dict[str, nn.Module] = field(default_factory=dict)
    """The networks as they are called: compiled, or shared with other processes."""
    grey_scale: GreyScale | None = None
    """The grey scale that was measured on the training volumes; None for normalizations that measure nothing."""

    def __post_init__(self) -> None:
        self.forwards = self.forwards or dict(self.networks)

    @property
    def network(self) -> AnyNetwork:
        """The only network, of supervised training."""
        return self.networks[NETWORK]

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The only optimizer, of supervised training."""
        return self.optimizers[NETWORK]

    @property
    def forward(self) -> nn.Module:
        """The only network as it is called."""
        return self.forwards[NETWORK]

    @property
    def trained(self) -> list[nn.Parameter]:
        """The weights that training changes, of all networks."""
        return [parameter for part in self.trained_parts().values() for parameter in part.parameters()]

    def trained_parts(self) -> Mapping[str, nn.Module]:
        """Return the part of each network that is trained and saved."""
        return {name: trained_part(network) for name, network in self.networks.items()}
