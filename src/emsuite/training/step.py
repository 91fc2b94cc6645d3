"""What training changes, and what the trainer asks of a kind of training: its networks, its batches, one iteration.

To add a kind of training, write a class with the methods of `TrainingStep` in a module of this package, name it in
`emsuite.training.registry.STEPS`, and add its name to `step` in `emsuite.config.network`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from emsuite.config.network import NetworkConfig
from emsuite.config.trained_with import Record
from emsuite.data.grey_values import GreyRange
from emsuite.data.normalization import GreyScale
from emsuite.data.training_volume import TrainingVolume
from emsuite.losses.target import HeadOutput
from emsuite.models.cuda_graph import Replayed
from emsuite.models.network import AnyNetwork, AutocontextNetwork, Network, trained_part
from emsuite.models.transfer.generator import Generator
from emsuite.training.batches import Batch, Batches, BatchShare
from emsuite.training.transfer.image_pool import ImagePool

NETWORK = "network"
"""The name of the network in a state or checkpoint that holds one alone."""


@dataclass(frozen=True)
class FrozenWeights:
    """Which weights of the frozen network an autocontext network reads LSDs from, or a discriminator its prior."""

    iteration: int
    digest: str

    @property
    def record(self) -> dict[str, Any]:
        """What checkpoints and manifests tell of them."""
        return {"iteration": self.iteration, "digest": self.digest}


@dataclass
class TrainingState:
    """Everything that training changes.

    A checkpoint holds all of it, so that a resumed run continues as if it had never been stopped. Kinds of training
    with several networks or optimizers name each; supervised training calls its only network `network`.
    """

    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    averages: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """The running average of each network's weights; empty without averaging."""
    iteration: int = 0
    frozen: FrozenWeights | None = None
    """The frozen network's weights, in an autocontext network or beside a prior."""
    made_from: Mapping[str, str] = field(default_factory=dict)
    """Which runs made what training reads, for the manifest, see `emsuite.common.state.origins`."""
    trained_with: list[Record] = field(default_factory=list)
    """What it was trained with so far, see `emsuite.config.trained_with`."""
    forwards: dict[str, nn.Module] = field(default_factory=dict)
    """The networks as they are called: compiled, or shared with other processes."""
    grey_scale: GreyScale | None = None
    """The grey scale that was measured on the training volumes; None for normalizations that measure nothing."""
    grey_range: GreyRange | None = None
    """The range of grey values that was measured on the training volumes, if any."""
    images: dict[str, Any] | None = None
    """The normalization of the plate that it is trained on, see `emsuite.data.images.scales`."""
    started_from: dict[str, Any] | None = None
    """Which given weights training began with, see `emsuite.training.trained_network`."""
    domains: dict[str, dict[str, Any]] | None = None
    """The statistics of the domains of transfer by name, see `emsuite.data.transfer.statistics`."""
    pools: dict[str, ImagePool] = field(default_factory=dict)
    """The former images that discriminators are shown, by domain, see `emsuite.training.transfer.image_pool`."""
    validation: dict[str, Any] | None = None
    """How validation stands: `best_iteration`, `best_loss`, and how often it was `without_gain` since."""
    replayed: Replayed = field(default_factory=lambda: Replayed("training"))
    """The iteration as a CUDA graph, where there is one."""

    def __post_init__(self) -> None:
        self.forwards = self.forwards or dict(self.networks)

    @property
    def network(self) -> AnyNetwork:
        """The only network, of supervised training."""
        network = self.networks[NETWORK]
        assert isinstance(network, Network | AutocontextNetwork | Generator)
        return network

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


@dataclass(frozen=True)
class StepResult:
    """The outcome of one iteration."""

    losses: dict[str, Tensor]
    """`loss`, the sum that was minimized, and each of its parts, by name."""
    batch: Batch
    """The last batch of the iteration, for snapshots."""
    outputs: Mapping[str, HeadOutput] = field(default_factory=dict)
    """The outputs for `batch`, by head; with their gradients if the iteration was to keep them."""
    panels: Mapping[str, Tensor] = field(default_factory=dict)
    """Pictures in place of targets and outputs, (B, C, Z, Y, X) by name, 0 to 1, if the iteration was to keep them."""
    read: Mapping[str, Tensor] = field(default_factory=dict)
    """What the network read beside raw, by name, if the iteration was to keep it: `lsds`, (B, 10, Z, Y, X)."""


class TrainingStep(Protocol):
    """One kind of training."""

    def loss_names(self, config: NetworkConfig) -> list[str]:
        """Return the names of the parts of the loss, as `StepResult.losses` and `held_out` give them beside `loss`."""

    def build(self, folder: Path, config: NetworkConfig) -> tuple[dict[str, nn.Module], FrozenWeights | None]:
        """Return the networks with fresh weights, by name, and which frozen weights they read, if any."""

    def frozen_weights(self, folder: Path, config: NetworkConfig) -> FrozenWeights | None:
        """Return which frozen weights the networks of `folder` would read now, if any."""

    def make_optimizers(
        self, networks: Mapping[str, nn.Module], config: NetworkConfig
    ) -> dict[str, torch.optim.Optimizer]:
        """Return the optimizers with fresh state, by name."""

    def make_pools(self, config: NetworkConfig) -> dict[str, ImagePool]:
        """Return the pools of former images, empty, by domain; none for a kind of training that shows none."""

    def make_batches(
        self,
        state: TrainingState,
        config: NetworkConfig,
        volumes: Sequence[TrainingVolume],
        share: BatchShare,
        iterations: range,
        device: torch.device,
    ) -> Batches:
        """Return the batches of these iterations for this process."""

    def held_out(
        self, state: TrainingState, config: NetworkConfig, volumes: Sequence[TrainingVolume], device: torch.device
    ) -> Callable[[TrainingState, int], dict[str, Tensor]]:
        """Return what computes the losses of a held-out sample by its number: `loss`, and each of `loss_names`."""

    def run(
        self, state: TrainingState, config: NetworkConfig, batches: Iterator[Batch], iteration: int, keep: bool = False
    ) -> StepResult:
        """Train one iteration: update the weights and move `state` on to `iteration`.

        The result of an iteration that `keep`s holds all that a snapshot shows: gradients, and what networks read.
        """
