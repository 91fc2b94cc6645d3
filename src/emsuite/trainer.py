"""Training: settings, set-up and loop, read from top to bottom.

sample (CPU) -> targets -> forward -> loss per head -> Adam -> log, snapshot, checkpoint
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from emsuite import checkpoint as checkpoints
from emsuite.checkpoint import Checkpoint
from emsuite.device import autocast
from emsuite.errors import RunFailed
from emsuite.losses import LOSSES, Target
from emsuite.network import AnyNetwork, normalise, probabilities, trained_part
from emsuite.network_config import NetworkConfig
from emsuite.optimizer import learning_rate, make_optimizer, update_average
from emsuite.prefetch import prefetch
from emsuite.progress import progress
from emsuite.provenance import provenance
from emsuite.sampler import Sample, Sampler
from emsuite.snapshot import save_snapshot, snapshot_path
from emsuite.targets import label_context, make_targets
from emsuite.training_log import TrainingLog
from emsuite.training_volume import TrainingVolume

logger = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """What training changes: all of it is in a checkpoint, so that a resumed run goes on as if never stopped."""

    network: AnyNetwork
    optimizer: torch.optim.Adam
    average: dict[str, Tensor] | None
    iteration: int
    first: str | None
    """digest of the frozen network's weights, in an autocontext network"""


@dataclass(frozen=True)
class Step:
    """What one iteration yields: the losses, and what a snapshot shows."""

    losses: dict[str, Tensor]
    targets: dict[str, Target]
    logits: dict[str, Tensor]


def train(folder: Path, config: NetworkConfig, volumes: Sequence[TrainingVolume], until: int,
          device: torch.device) -> int:  # fmt: skip
    """Train the network of `folder` up to iteration `until`, from its newest checkpoint if it has one.

    Returns the iteration reached. Raises RunFailed on a loss that is no number; nothing is saved then.
    """
    state = start_or_resume(folder, config, device)
    if state.iteration >= until:
        logger.info("%s is at iteration %d already: nothing to do", folder, state.iteration)
        if until in checkpoints.iterations(folder):
            checkpoints.write_manifest(
                checkpoints.checkpoint_path(folder, until), checkpoints.load(folder, config, until)
            )
        return state.iteration
    training, first = config.training, state.iteration + 1
    shape = state.network.output_shape(training.input_shape)
    sampler = Sampler(volumes, training.input_shape, shape, label_context(config), training.augment, training.sampling)
    log = TrainingLog(folder, list(config.heads), state.iteration)
    batches = _batches(sampler, training.batch_size, range(first, until + 1), device)
    bar = progress(range(first, until + 1), what=f"train {config.dataset}/{config.network}", total=until,
                   done=state.iteration)  # fmt: skip
    for iteration in bar:
        asked = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - asked
        step = train_step(state, config, batch, iteration, device)
        if iteration % training.log_every == 0 or iteration in (first, until):
            losses = _as_numbers(folder, step.losses, iteration)
            bar.set_postfix(loss=f"{losses['loss']:.4f}", refresh=False)
            rate, seconds = state.optimizer.param_groups[0]["lr"], time.perf_counter() - asked
            log.add(iteration, losses | {"learning_rate": rate, "seconds": seconds, "waiting": waited})
        if iteration % training.snapshot_every == 0:
            predictions = probabilities(step.logits)
            save_snapshot(snapshot_path(folder, iteration), config, batch.raw, step.targets, predictions)
        if iteration % training.checkpoint_every == 0 or iteration == until:
            _as_numbers(folder, step.losses, iteration)
            save(folder, config, state, volumes)
    log.close()
    return state.iteration


def train_step(state: TrainingState, config: NetworkConfig, batch: Sample, iteration: int,
               device: torch.device) -> Step:  # fmt: skip
    """One iteration: targets from labels, forward, backward, update; moves `state` on to `iteration`."""
    labels, mask = batch.labels.to(device, non_blocking=True), batch.mask.to(device, non_blocking=True)
    raw = normalise(batch.raw.to(device, non_blocking=True))[:, None].to(memory_format=torch.channels_last_3d)
    targets = make_targets(config, labels, mask, iteration)
    if any(head.at(iteration) != head.at(iteration - 1) for head in config.heads.values()):
        state.optimizer = make_optimizer(_trained(state.network), config.training.optimizer)
    rate = learning_rate(config.training.optimizer, iteration, config.training.iterations)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    with autocast(device, getattr(torch, config.training.precision)):
        logits = state.network(raw)
    losses = {name: LOSSES[head.at(iteration).loss](logits[name].float(), targets[name])
              for name, head in config.heads.items()}  # fmt: skip
    losses = {"loss": torch.stack([losses[n] * h.loss_weight for n, h in config.heads.items()]).sum()} | losses
    state.optimizer.zero_grad()
    losses["loss"].backward()
    if config.training.optimizer.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(_trained(state.network), config.training.optimizer.clip_norm)
    state.optimizer.step()
    state.iteration = iteration
    if state.average is not None and config.training.average is not None:
        update_average(state.average, trained_part(state.network).state_dict(), config.training.average, iteration)
    return Step({name: loss.detach() for name, loss in losses.items()}, targets, logits)


def start_or_resume(folder: Path, config: NetworkConfig, device: torch.device) -> TrainingState:
    """The newest checkpoint of `folder` as a state on `device`, or a fresh one from the seed."""
    torch.manual_seed(config.training.sampling.seed)
    network, first = checkpoints.build_with_first(folder, config)
    saved = checkpoints.load(folder, config) if checkpoints.iterations(folder) else None
    if saved is not None:
        checkpoints.check_first(folder, config, saved, first)
        path = checkpoints.checkpoint_path(folder, saved.iteration)
        checkpoints.load_weights(trained_part(network), saved.weights, path)
    network = network.train().to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimizer = make_optimizer(_trained(network), config.training.optimizer)
    average = None
    if config.training.average is not None:
        kept = (saved.averaged if saved else None) or trained_part(network).state_dict()
        average = {name: weights.detach().clone().to(device) for name, weights in kept.items()}
    if saved is not None and saved.optimizer is not None:
        checkpoints.load_optimizer(optimizer, saved.optimizer, path)
    if saved is not None:
        logger.info("%s: going on from iteration %d", folder, saved.iteration)
    return TrainingState(network, optimizer, average, saved.iteration if saved else 0, first)


def save(folder: Path, config: NetworkConfig, state: TrainingState, volumes: Sequence[TrainingVolume]) -> None:
    """Write a checkpoint of `state`, with provenance. Raises RunFailed if a weight is no number."""
    inputs = {str(index): Path(volume.name) for index, volume in enumerate(volumes)}
    about = provenance(config.model_dump(mode="json"), inputs, config.training.sampling.seed)
    weights = {name: tensor.contiguous() for name, tensor in trained_part(state.network).state_dict().items()}
    broken = [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise RunFailed(
            f"{folder}: {broken[0]} is no number after iteration {state.iteration}; nothing was saved since"
        )
    content = Checkpoint(state.iteration, config.architecture(), weights, state.average,
                         state.optimizer.state_dict(), state.first, about)  # fmt: skip
    path = checkpoints.save(folder, content)
    logger.debug("saved %s", path)


def _batches(sampler: Sampler, size: int, iterations: range, device: torch.device) -> Iterator[Sample]:
    # Where the network trains on the processors too, a thread that draws ahead only gets into its way: every
    # convolution then waits for the core that draws (measured: 143 against 120 ms per iteration on two cores).
    if device.type == "cpu":
        return (sampler.batch(iteration, size) for iteration in iterations)
    return prefetch(lambda iteration: sampler.batch(iteration, size), iterations.start, iterations.stop)


def _trained(network: AnyNetwork) -> list[torch.nn.Parameter]:
    return list(trained_part(network).parameters())


def _as_numbers(folder: Path, losses: dict[str, Tensor], iteration: int) -> dict[str, float]:
    numbers = {name: float(loss) for name, loss in losses.items()}
    for name, number in numbers.items():
        if not number < float("inf"):
            raise RunFailed(f"{folder}: the {name} is {number} at iteration {iteration}; nothing was saved since")
    return numbers
