"""What training changes, from one checkpoint to the next."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from emsuite.common.device import check_compiler
from emsuite.common.errors import RunFailed
from emsuite.common.provenance import provenance
from emsuite.config.network import NetworkConfig
from emsuite.models.network import AnyNetwork, trained_part
from emsuite.training import checkpoint as checkpoints
from emsuite.training.checkpoint import Checkpoint
from emsuite.training.optimizer import make_optimizer

logger = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """What training changes: all of it is in a checkpoint, so that a resumed run goes on as if never stopped."""

    network: AnyNetwork
    optimizer: torch.optim.Adam
    average: dict[str, Tensor] | None
    iteration: int
    frozen_digest: str | None
    """digest of the frozen network's weights, in an autocontext network"""
    forward: nn.Module
    """the network as it is called: compiled or shared with other processes, where it is"""

    @property
    def trained(self) -> list[nn.Parameter]:
        """The weights that training changes."""
        return list(trained_part(self.network).parameters())


def start(folder: Path, config: NetworkConfig, device: torch.device) -> TrainingState:
    """A state on `device` with fresh weights, from the seed; `folder` says where a frozen network lies."""
    torch.manual_seed(config.training.sampling.seed)
    network, frozen_digest = checkpoints.build_with_frozen(folder, config)
    network = network.train().to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimizer = make_optimizer(list(trained_part(network).parameters()), config.training.optimizer)
    average = None
    if config.training.average is not None:
        weights = trained_part(network).state_dict()
        average = {name: tensor.detach().clone() for name, tensor in weights.items()}
    forward: nn.Module = network
    if config.training.compile:
        check_compiler(device)
        forward = torch.compile(network)  # type: ignore[assignment]
    return TrainingState(network, optimizer, average, 0, frozen_digest, forward)


def start_or_resume(folder: Path, config: NetworkConfig, device: torch.device) -> TrainingState:
    """The newest checkpoint of `folder` as a state on `device`, or a fresh one from the seed."""
    saved = checkpoints.load(folder, config) if checkpoints.iterations(folder) else None
    state = start(folder, config, device)
    if saved is None:
        return state
    checkpoints.check_frozen(folder, config, saved, state.frozen_digest)
    path = checkpoints.checkpoint_path(folder, saved.iteration)
    checkpoints.load_weights(trained_part(state.network), saved.weights, path)
    if state.average is not None:
        for name, weights in (saved.averaged or saved.weights).items():
            state.average[name].copy_(weights)  # which keeps the order in memory, that of the weights it will follow
    if saved.optimizer is not None:
        checkpoints.load_optimizer(state.optimizer, saved.optimizer, path)
    state.iteration = saved.iteration
    logger.info("%s: going on from iteration %d", folder, saved.iteration)
    return state


def save(folder: Path, config: NetworkConfig, state: TrainingState, names: Sequence[str]) -> None:
    """Write a checkpoint of `state`, with provenance; `names` are the paths of the volumes it was trained on.

    Raises RunFailed if a weight is no number.
    """
    inputs = {str(index): Path(name) for index, name in enumerate(names)}
    about = provenance(config.model_dump(mode="json"), inputs, config.training.sampling.seed)
    weights = {name: tensor.contiguous() for name, tensor in trained_part(state.network).state_dict().items()}
    broken = [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise RunFailed(
            f"{folder}: {broken[0]} is no number after iteration {state.iteration}; nothing was saved since"
        )
    content = Checkpoint(state.iteration, config.architecture(), weights, state.average,
                         state.optimizer.state_dict(), state.frozen_digest, about)  # fmt: skip
    path = checkpoints.save(folder, content)
    logger.debug("saved %s", path)
