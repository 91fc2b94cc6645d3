"""A trained network with all that its predictions need: supervised, or the generator of one direction."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emsuite.common.errors import BadInput
from emsuite.config.network import NetworkConfig
from emsuite.config.transfer import Direction
from emsuite.config.transfer_networks import GENERATORS, generator_of
from emsuite.data.raw import Reads
from emsuite.data.transfer.settings import DomainSettings
from emsuite.data.transfer.statistics import DomainStatistics
from emsuite.models.network import AnyNetwork, is_local
from emsuite.training import checkpoint as checkpoints
from emsuite.training.trained_network import load_trained


@dataclass(frozen=True)
class Trained:
    """A network with the weights of a checkpoint, and how grey values become its input and its output."""

    network: AnyNetwork
    iteration: int
    checkpoint: checkpoints.Checkpoint
    digest: str
    """Of the weights."""
    path: Path
    """Of the checkpoint."""
    reads: Reads
    settings: dict[str, Any] = field(default_factory=dict)
    """Further settings that decide the bytes of its predictions."""

    @property
    def is_local(self) -> bool:
        """See `models.network.is_local`."""
        return is_local(self.network)


def load_for_prediction(
    folder: Path, config: NetworkConfig, iteration: int | None = None, direction: Direction | None = None
) -> Trained:
    """Return the network of a folder, ready to predict.

    Args:
        folder: that of the network.
        config: its configuration.
        iteration: of the checkpoint; None: the newest.
        direction: which generator, of domain transfer; None for other networks.

    Raises:
        BadInput: there is no such checkpoint, or a direction is missing, or there is none to choose.
    """
    if config.transfer is None:
        if direction is not None:
            raise BadInput(f"--direction {direction}: {folder} is no network of domain transfer, expected none")
        network, saved = load_trained(folder, config, iteration)
        digest = checkpoints.digest(saved.best_weights)
        path = checkpoints.checkpoint_path(folder, saved.iteration)
        reads = Reads(config.voxel_size, config.normalization, saved.grey_range, saved.grey_scale)
        return Trained(network, saved.iteration, saved, digest, path, reads)
    if direction is None:
        raise BadInput(f"{folder}: a network of domain transfer, expected --direction A2B or --direction B2A")
    return _generator(folder, config, config.transfer.domains.a if direction == "A2B" else config.transfer.domains.b,
                      iteration, direction)  # fmt: skip


def _generator(
    folder: Path, config: NetworkConfig, domain: DomainSettings, iteration: int | None, direction: Direction
) -> Trained:
    saved = checkpoints.load(folder, config, iteration)
    path = checkpoints.checkpoint_path(folder, saved.iteration)
    if not saved.domains or not saved.domains.keys() >= {"a", "b"}:
        raise BadInput(f"{path}: holds no statistics of the domains, expected a checkpoint of domain transfer")
    source, target = (DomainStatistics.from_dict(saved.domains[name.lower()]) for name in direction.split("2"))
    name = GENERATORS[direction]
    weights = saved.averages.get(name) or saved.weights_of(name)
    network = generator_of(config.generators, config.heads)
    checkpoints.load_weights(network, weights, path)
    size, scales = domain.voxel_size or config.voxel_size, (source.scale, target.scale)
    reads, settings = Reads(size, domain.normalization, source.grey_range, *scales), {
        "direction": direction, "domains": saved.domains
    }  # fmt: skip
    return Trained(network, saved.iteration, saved, checkpoints.digest(weights), path, reads, settings)
