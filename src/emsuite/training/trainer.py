"""Training, read from top to bottom.

batches (sample -> targets) -> forward -> loss per head -> backward -> Adam -> log, snapshot, checkpoint
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from emsuite.common.device import autocast, deterministic
from emsuite.common.errors import RunFailed
from emsuite.common.memory import kept_memory
from emsuite.config.network import NetworkConfig
from emsuite.data.normalization import normalise
from emsuite.data.sampler import Sampler
from emsuite.data.training_volume import TrainingVolume, on_device
from emsuite.losses.registry import LOSSES
from emsuite.losses.target import HeadOutput
from emsuite.models.network import trained_part
from emsuite.training import checkpoint as checkpoints
from emsuite.training.batches import Batch, Batches
from emsuite.training.distributed import Processes, processes
from emsuite.training.log import TrainingReport
from emsuite.training.optimizer import learning_rate, make_optimizer, update_average
from emsuite.training.signals import StopRequest, stop_requests
from emsuite.training.snapshot import save_snapshot, snapshot_path
from emsuite.training.state import TrainingState, save, start_or_resume

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """What one iteration yields: the losses, and what a snapshot shows."""

    losses: dict[str, Tensor]
    batch: Batch
    outputs: dict[str, HeadOutput]


@dataclass(frozen=True)
class Run:
    """What stays the same from iteration to iteration."""

    folder: Path
    config: NetworkConfig
    volumes: Sequence[str]
    until: int
    group: Processes
    request: StopRequest


def train(folder: Path, config: NetworkConfig, volumes: Sequence[TrainingVolume], until: int,
          device: torch.device) -> int:  # fmt: skip
    """Train the network of `folder` up to iteration `until`, from its newest checkpoint if it has one.

    Returns the exit code of the run: 0, or 128 + the signal that ended it early; it has saved then, and the same call
    goes on from there. Processes that `torchrun` has started share every batch, and the first of them writes.
    Raises RunFailed on a loss that is no number; nothing is saved then.
    """
    with (
        processes(device) as group,
        stop_requests() as request,
        deterministic(config.training.deterministic),
        kept_memory(),
    ):
        state = start_or_resume(folder, config, group.device)
        run = Run(folder, config, [volume.name for volume in volumes], until, group, request)
        if state.iteration < until:
            state.forward = group.parallel(state.forward)
            _train(run, state, on_device(volumes, group.device))
            return request.exit_code
        logger.info("%s is at iteration %d already: nothing to do", folder, state.iteration)
        if group.is_main and until in checkpoints.iterations(folder):
            checkpoints.write_manifest(
                checkpoints.checkpoint_path(folder, until), checkpoints.load(folder, config, until)
            )
    return 0


def _train(run: Run, state: TrainingState, volumes: Sequence[TrainingVolume]) -> None:
    training, first = run.config.training, state.iteration + 1
    shape = state.network.output_shape(training.input_shape)
    targets = run.config.target_maker
    sampler = Sampler(volumes, training.input_shape, shape, targets.label_context, training.augment, training.sampling)
    share = run.group.share(training.batch_size, training.accumulate)
    iterations = range(first, run.until + 1)
    with ExitStack() as stack:
        batches = stack.enter_context(closing(Batches(targets, sampler, share, iterations, run.group.device)))
        report = None
        if run.group.is_main:
            made = TrainingReport(run.folder, run.config, state.iteration, run.until)
            report = stack.enter_context(closing(made))
        for iteration in iterations:
            step = train_step(state, run.config, batches, iteration)
            run.request.signal = run.group.all_reduce_max(run.request.signal)
            ends = bool(run.request.signal) or iteration == run.until
            _report(run, state, step, batches.waited, report, iteration == first or ends)
            if iteration % training.checkpoint_every == 0 or ends:
                _numbers(run, state, step)
                if run.group.is_main:
                    save(run.folder, run.config, state, run.volumes)
            del step  # its tensors make room for those of the next
            if run.request.signal:
                logger.info("%s: asked to end, saved at iteration %d", run.folder, iteration)
                break


def train_step(state: TrainingState, config: NetworkConfig, batches: Iterator[Batch], iteration: int) -> Step:
    """One iteration: forward and backward for each of its batches, then one update; moves `state` on to `iteration`."""
    if any(head.settings_at(iteration) != head.settings_at(iteration - 1) for head in config.heads.values()):
        state.optimizer = make_optimizer(state.trained, config.training.optimizer)
    rate = learning_rate(config.training.optimizer, iteration, config.training.iterations)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.zero_grad()
    parts = config.training.accumulate
    total: dict[str, Tensor] = {}
    for part, batch in enumerate(islice(batches, parts), start=1):
        with _gradients_kept_apart(state, part < parts):
            losses, outputs = _losses(state, config, batch)
            (losses["loss"] / parts).backward()
        for name, loss in losses.items():
            total[name] = total.get(name, 0) + loss.detach() / parts
    if config.training.optimizer.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(state.trained, config.training.optimizer.clip_norm)
    state.optimizer.step()
    state.iteration = iteration
    if state.average is not None and config.training.average is not None:
        update_average(state.average, trained_part(state.network).state_dict(), config.training.average, iteration)
    return Step(total, batch, outputs)


def _losses(
    state: TrainingState, config: NetworkConfig, batch: Batch
) -> tuple[dict[str, Tensor], dict[str, HeadOutput]]:
    raw = normalise(batch.arrays["raw"]).to(memory_format=torch.channels_last_3d)
    with autocast(raw.device, getattr(torch, config.training.precision)):
        logits = state.forward(raw)
    outputs = {name: HeadOutput(logits[name].float(), head.activate) for name, head in config.heads.items()}
    losses = {
        name: LOSSES[head.settings_at(batch.iteration).loss](outputs[name], batch.targets[name])
        for name, head in config.heads.items()
    }
    weighted = [losses[name] * head.loss_weight for name, head in config.heads.items()]
    return {"loss": torch.stack(weighted).sum()} | losses, outputs


def _gradients_kept_apart(state: TrainingState, wanted: bool) -> AbstractContextManager[None]:
    shared = isinstance(state.forward, DistributedDataParallel)
    return state.forward.no_sync() if wanted and shared else nullcontext()  # type: ignore[operator]


def _report(run: Run, state: TrainingState, step: Step, waited: float, report: TrainingReport | None,
            now: bool) -> None:  # fmt: skip
    training, iteration = run.config.training, state.iteration
    if report:
        report.step()
    if now or iteration % training.log_every == 0:
        losses = _numbers(run, state, step)
        if report:
            report.add(iteration, losses, state.optimizer.param_groups[0]["lr"], waited)
    if report and iteration % training.snapshot_every == 0:
        raw, targets, predictions = (
            step.batch.arrays["raw"][:, 0],
            step.batch.targets,
            {name: out.values for name, out in step.outputs.items()},
        )
        save_snapshot(snapshot_path(run.folder, iteration), run.config, raw, targets, predictions)
        report.show(iteration, raw, targets, predictions)


def _numbers(run: Run, state: TrainingState, step: Step) -> dict[str, float]:
    """The losses, over all processes; raises RunFailed if one is no number."""
    means = run.group.mean(torch.stack(list(step.losses.values()))).tolist()
    for name, number in zip(step.losses, means, strict=True):
        if not number < float("inf"):
            raise RunFailed(
                f"{run.folder}: the {name} is {number} at iteration {state.iteration}; nothing was saved since"
            )
    return dict(zip(step.losses, means, strict=True))
