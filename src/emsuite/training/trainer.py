"""Training, read from top to bottom: resume, then for each iteration run a step, log, snapshot, checkpoint.

What a step does, the kind of training says: see `emsuite.training.supervised` for labelled samples.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from emsuite.common.device import deterministic
from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.outputs import manifest_path
from emsuite.common.profile import profiling
from emsuite.common.provenance import git_commit
from emsuite.common.state.lock import Lock
from emsuite.config.memory import check_memory
from emsuite.config.network import NetworkConfig
from emsuite.config.trained_with import IfChanged, Record, record
from emsuite.data.training_volume import TrainingVolume, on_device
from emsuite.data.watched import Told, Watched
from emsuite.io.volume import is_url
from emsuite.training import checkpoint as checkpoints
from emsuite.training.checkpoint_manifest import renew_manifest
from emsuite.training.distributed import Processes, StopRequest, processes, stop_requests
from emsuite.training.log import TrainingReport, save_snapshot
from emsuite.training.registry import STEPS
from emsuite.training.resume import save, start_or_resume, trained_already
from emsuite.training.step import StepResult, TrainingState
from emsuite.training.trained_network import given_today, runs_of_weights
from emsuite.training.validation import Validator
from emsuite.training.volumes import training_data

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """The parts of a run that stay the same from iteration to iteration."""

    folder: Path
    config: NetworkConfig
    volumes: Sequence[str]
    """The paths of the training volumes."""
    until: int
    """The last iteration."""
    group: Processes
    request: StopRequest
    lock: Lock | None
    """That of the folder; only the process that writes has it."""
    check_volumes: Callable[[bool], None]
    """Raises BadInput for volumes that were edited since; True: also for those on servers, see `Watched`."""
    checks_slowly: bool = False
    """Whether volumes on servers are streamed, so that a check reads all voxels: a signal saves without a check."""
    measured_on: Sequence[Mapping[str, Any]] = ()
    """The contents of the volumes to validate on, see `training_data`."""


def train(folder: Path, config: NetworkConfig, volumes: Sequence[TrainingVolume], until: int,
          device: torch.device, if_changed: IfChanged = "refuse",
          held_out: Sequence[TrainingVolume] = (), watched: Watched | None = None) -> int:  # fmt: skip
    """Train the network of `folder` up to iteration `until`, from its newest checkpoint if it has one.

    Processes that `torchrun` has started share every batch; the first of them writes.

    Args:
        folder: that of the network, or a run folder; checkpoints, snapshots and the log go there.
        config: the resolved configuration.
        volumes: to train on.
        until: the last iteration.
        device: to train on.
        if_changed: what happens if its checkpoint was trained with other settings or data, see `resume.check_record`.
        held_out: to validate on, see `training.validation`.
        watched: all that was read, from before it was; None: looked at from now on.

    Returns:
        the exit code of the run: 0, or 128 + the signal that ended it early. Then the run has saved a checkpoint, and
        the same call continues from it.

    Raises:
        BadInput: a checkpoint was trained with other settings or data, or does not fit, or there is none of iteration
            `until` though there are later ones.
        RunFailed: a loss is no number. Nothing is saved then.
    """
    config, loaded = _with_end(config, until), [*volumes, *held_out]
    watched = watched or Watched.of(path for volume in loaded for path in volume.paths)
    frozen = STEPS[config.step].frozen_weights(folder, config)
    data = training_data(volumes, config.training.augment)
    validation, measured_on = config.training.validation, training_data(held_out)
    decide = validation is not None and validation.patience is not None
    watched.check(data)
    made_from = watched.made_from | runs_of_weights(folder, config)
    watched = watched.streamed(loaded)
    now = record(config, data, git_commit(), frozen.record if frozen else None, measured_on if decide else None,
                 given_today(folder, config))  # fmt: skip
    with (
        processes(device) as group,
        checkpoints.owned_folder(folder) if group.is_main else nullcontext() as lock,
        stop_requests() as request,
        deterministic(config.training.deterministic),
    ):
        if _is_trained(folder, config, until, now, if_changed, made_from, group):
            return 0
        check_memory(config, group.device, group.count)
        state = start_or_resume(folder, config, group.device, now, if_changed)
        state.made_from = made_from
        if state.iteration > until:
            newest = checkpoints.saved_path(folder, state.iteration)
            raise BadInput(
                f"{newest}: is at iteration {state.iteration} already, and there is no checkpoint of {until}; "
                f"train up to {state.iteration} or more"
            )
        names = list(dict.fromkeys(path for volume in volumes for path in volume.paths))

        check = _check_of(watched, loaded, [*data[: len(volumes)], *measured_on])
        run = Run(folder, config, names, until, group, request, lock, check, bool(watched.on_servers), measured_on)
        state.forwards = {name: group.parallel(network) for name, network in state.forwards.items()}
        _train(run, state, on_device(volumes, group.device), on_device(held_out, group.device))
        return request.exit_code


def _is_trained(folder: Path, config: NetworkConfig, until: int, now: Record, if_changed: IfChanged,
                made_from: Mapping[str, str], group: Processes) -> bool:  # fmt: skip
    """Return whether the checkpoint of iteration `until` is there; say so, and renew its manifest if that is gone."""
    finished = trained_already(folder, config, until, now, if_changed)
    if finished is None:
        return False
    logger.info("%s is at iteration %d already: nothing to do", folder, until)
    path = checkpoints.checkpoint_path(folder, until)
    if group.is_main and not manifest_path(path).exists():
        renew_manifest(path, finished.iteration, finished.provenance, made_from)
    return True


def _check_of(watched: Watched, volumes: Sequence[TrainingVolume], recorded: Told) -> Callable[[bool], None]:
    """Return `Run.check_volumes`; `recorded` tells of each of the volumes."""
    served = [number for number, volume in enumerate(volumes) if any(map(is_url, volume.paths))]
    known = [recorded[number] for number in served]
    return lambda reads_servers: watched.check(
        known, (lambda: training_data([volumes[number] for number in served])) if reads_servers else None
    )


def _train(run: Run, state: TrainingState, volumes: Sequence[TrainingVolume],
           held_out: Sequence[TrainingVolume]) -> None:  # fmt: skip
    training, step = run.config.training, STEPS[run.config.step]
    first = state.iteration + 1
    iterations = range(first, run.until + 1)
    with ExitStack() as stack:
        profile = stack.enter_context(profiling(run.group.device, run.group.is_main and training.profile_every > 0))
        # Threads prepare the batches while the network trains.
        share = run.group.share(training.batch_size, training.accumulate)
        made = step.make_batches(state, run.config, volumes, share, iterations, run.group.device)
        batches = stack.enter_context(closing(made))
        validator = Validator(run.folder, run.config, state, held_out, run.group, run.measured_on)
        report, saved = None, time.monotonic()
        if run.group.is_main:
            report = TrainingReport(run.folder, run.config, state.iteration, run.until, step.loss_names(run.config))
            stack.enter_context(closing(report))
        for iteration in () if validator.is_over(state) else iterations:
            # Gradients are kept for snapshots alone.
            is_shown = iteration == first or iteration % training.snapshot_every == 0
            result = step.run(state, run.config, batches, iteration, is_shown)
            is_due, ends = _agreed(run, saved), bool(run.request.agreed) or iteration == run.until
            is_logged = iteration == first or iteration % training.log_every == 0 or ends
            _report(run, state, result, batches.waited, report, is_logged, is_shown)
            if report and profile and (iteration % training.profile_every == 0 or ends):
                report.add_profile(iteration, profile.take())
            is_best = _validate(state, validator, report, iteration)
            if validator.is_over(state) and not run.request.agreed:
                break
            is_asked_for = iteration % training.checkpoint_every == 0 or iteration == run.until
            is_kept = is_asked_for or is_best or (ends and not run.checks_slowly)
            if is_kept or is_due or ends:
                _save(run, state, result, not is_kept, is_best and not is_asked_for)
                saved = time.monotonic()
            if is_best and run.group.is_main:
                validator.remove_former()
            del result  # its tensors make room for those of the next iteration
            if run.request.agreed:
                logger.info("%s: asked to end, saved at iteration %d", run.folder, iteration)
                break

        if validator.is_over(state) and not run.request.agreed:
            _end_early(run, state, validator)


def _with_end(config: NetworkConfig, until: int) -> NetworkConfig:
    """Return the configuration with the end of a falling learning rate at `until`, if that is behind its own end."""
    training = config.training
    if not config.rate_ends or until <= training.iterations:
        return config
    schedule = "linear" if config.transfer else training.optimizer.schedule
    logger.info("the learning rate (%s) falls until iteration %d, not %d", schedule, until, training.iterations)
    return config.model_copy(update={"training": training.model_copy(update={"iterations": until})})


def _agreed(run: Run, saved: float) -> bool:
    """Return whether an interim checkpoint is due, so long after the last one was `saved`; share signals to end.

    One process may have been asked to end, and the one that writes knows the time: all of them must end and save at
    the same iteration.
    """
    due = run.group.is_main and time.monotonic() - saved > 60 * run.config.training.checkpoint_every_minutes
    run.request.agreed, is_due = divmod(run.group.all_reduce_max(2 * run.request.signal + due), 2)
    return bool(is_due)


def _validate(state: TrainingState, validator: Validator, report: TrainingReport | None, iteration: int) -> bool:
    """Validate if it is time to; return whether this iteration is the best one so far."""
    if not validator.is_due(iteration):
        return False
    losses = validator.validate(state)
    assert state.validation is not None
    best = state.validation["best_iteration"]
    if report:
        report.add_validation(iteration, losses, best)
    return bool(best == iteration)


def _end_early(run: Run, state: TrainingState, validator: Validator) -> None:
    """Save the best weights as those of the last iteration."""
    assert state.validation is not None
    told = "%s: the validation loss was not lower for %d validations: ended at iteration %d, with the weights of %d"
    standing = state.validation
    logger.info(told, run.folder, standing["without_gain"], state.iteration, standing["best_iteration"])
    validator.take_best(state)
    state.iteration = run.until
    state.validation = standing | {"without_gain": 0}
    if run.lock:
        run.lock.check()
        run.check_volumes(True)
        save(run.folder, run.config, state, run.volumes)


def _save(run: Run, state: TrainingState, result: StepResult, interim: bool, only_best: bool) -> None:
    """Write a checkpoint; raise RunFailed if a loss is no number, or another run has taken the folder over.

    Raise BadInput if a volume was edited meanwhile.
    """
    _numbers(run, state, result)
    if run.lock:
        run.lock.check()
        run.check_volumes(not interim)
        save(run.folder, run.config, state, run.volumes, interim, only_best)


def _report(run: Run, state: TrainingState, result: StepResult, waited: float, report: TrainingReport | None,
            is_logged: bool, is_shown: bool) -> None:  # fmt: skip
    iteration = state.iteration
    if report:
        report.step()
    losses = _numbers(run, state, result) if is_logged or is_shown else {}
    if report and is_logged:
        rate = float(next(iter(state.optimizers.values())).param_groups[0]["lr"])
        report.add(iteration, losses, rate, waited)
    if report and is_shown:
        save_snapshot(run.folder, run.config, result, losses["loss"])
        report.show(result)


def _numbers(run: Run, state: TrainingState, result: StepResult) -> dict[str, float]:
    """Return the losses, averaged over all processes; raise RunFailed if one is no number."""
    means = run.group.mean(torch.stack(list(result.losses.values()))).tolist()
    for name, number in zip(result.losses, means, strict=True):
        if not number < float("inf"):
            raise RunFailed(
                f"{run.folder}: the {name} is {number} at iteration {state.iteration}; nothing was saved since"
            )
    return dict(zip(result.losses, means, strict=True))
