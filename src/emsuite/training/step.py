"""What the trainer asks of a kind of training: its networks, its batches, and one iteration.

To add a kind of training, write a class with these methods in a module of this package, name it in
`emsuite.training.registry.STEPS`, and add its name to `step` in `emsuite.config.network`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from emsuite.config.network import NetworkConfig
from emsuite.data.training_volume import TrainingVolume
from emsuite.losses.target import HeadOutput
from emsuite.models.network import AnyNetwork
from emsuite.training.batches import Batch, Batches, BatchShare
from emsuite.training.state import TrainingState


@dataclass(frozen=True)
class StepResult:
    """The outcome of one iteration."""

    losses: dict[str, Tensor]
    """`loss`, the sum that was minimized, and each of its parts, by name."""
    batch: Batch
    """The last batch of the iteration, for snapshots."""
    outputs: Mapping[str, HeadOutput]
    """The outputs for `batch`, by head."""


class TrainingStep(Protocol):
    """One kind of training."""

    def build(self, folder: Path, config: NetworkConfig) -> tuple[dict[str, AnyNetwork], str | None]:
        """Return the networks with fresh weights, by name, and the digest of frozen weights if there are any."""

    def make_optimizers(
        self, networks: Mapping[str, AnyNetwork], config: NetworkConfig
    ) -> dict[str, torch.optim.Optimizer]:
        """Return the optimizers with fresh state, by name."""

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

    def run(self, state: TrainingState, config: NetworkConfig, batches: Iterator[Batch], iteration: int) -> StepResult:
        """Train one iteration: update the weights and move `state` on to `iteration`."""
