"""Training states and checkpoints: start from fresh weights, go on from the newest checkpoint, save."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from emsuite.common.device import check_compiler
from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.provenance import provenance
from emsuite.config.checkpoint_content import record_normalization
from emsuite.config.network import NetworkConfig
from emsuite.config.trained_with import IfChanged, Record, continued, differences, has_other_frozen
from emsuite.data.grey_values import GreyRange
from emsuite.data.transfer.statistics import DomainStatistics
from emsuite.io.volume import fingerprint
from emsuite.models.network import AutocontextNetwork, Network, moved, trained_part
from emsuite.models.transfer.generator import Generator
from emsuite.training import checkpoint as checkpoints
from emsuite.training.checkpoint import Checkpoint
from emsuite.training.checkpoint_manifest import ONLY_BEST
from emsuite.training.optimizer import saved_state
from emsuite.training.registry import STEPS
from emsuite.training.step import NETWORK, TrainingState
from emsuite.training.trained_network import check_frozen, former_iteration, freeze, start_weights
from emsuite.training.transfer.domains import Statistics

logger = logging.getLogger(__name__)

_IN_THE_WORKFLOWS = "in the workflows: --config if_changed=continue, run=NAME (of transfer.smk: data_name=NAME)"
_GO_ON = (
    "--if-changed continue goes on from it with the new ones, if iterations are left to train, NETWORK_DIR/runs/NAME "
    "starts anew in a run folder"
)
_CHOICES = f"{_GO_ON}, --if-changed keep takes it as it is ({_IN_THE_WORKFLOWS}, if_changed=keep)"
_CHOICES_FROZEN = f"{_GO_ON} ({_IN_THE_WORKFLOWS})"
_WHY_NOT = {True: "before its last iteration", False: "without iterations left to train: ask for more of them"}


def start(folder: Path, config: NetworkConfig, device: torch.device, given: bool = True) -> TrainingState:
    """Return a state on `device` with fresh weights, from the seed, or with those of `training.start_from`.

    Args:
        folder: that of the network.
        config: the resolved configuration.
        device: of the state.
        given: whether to read the weights of `training.start_from`, which a resumed run has changed long ago.
    """
    torch.manual_seed(config.training.sampling.seed)
    step = STEPS[config.step]
    networks, frozen = step.build(folder, config)
    for network in networks.values():
        moved(network.train(), device)
    started = None
    if config.training.start_from is not None:
        trained = networks[NETWORK]
        assert isinstance(trained, Network | AutocontextNetwork)
        started = start_weights(folder, config, trained_part(trained)) if given else None
        freeze(config, trained_part(trained))
    state = TrainingState(networks, step.make_optimizers(networks, config), frozen=frozen, started_from=started)
    state.pools = step.make_pools(config)
    if config.training.average is not None:
        for name, part in state.trained_parts().items():
            if isinstance(part, Network | Generator):  # they predict; discriminators do not
                state.averages[name] = {key: tensor.detach().clone() for key, tensor in part.state_dict().items()}
    if config.training.compile:
        check_compiler(device)
        state.forwards = {name: torch.compile(network) for name, network in networks.items()}  # type: ignore[misc]
    return state


def start_or_resume(
    folder: Path,
    config: NetworkConfig,
    device: torch.device,
    now: Record | None = None,
    if_changed: IfChanged = "refuse",
) -> TrainingState:
    """Return the newest checkpoint of `folder` as a state on `device`, or a fresh state if there is none.

    Args:
        folder: that of the network, or a run folder.
        config: the resolved configuration.
        device: of the state.
        now: what the next iterations are trained with; None: unknown, any checkpoint will do.
        if_changed: what happens if the checkpoint was trained with other settings or data, see `check_record`.

    Raises:
        BadInput: as `check_record`, or the checkpoint does not fit.
    """
    saved = checkpoints.load_newest(folder, config)
    if saved is not None:
        check_record(folder, config, saved, now, if_changed, goes_on=True)
    state = start(folder, config, device, given=saved is None)
    state.trained_with = continued(saved.trained_with if saved else [], now, saved.iteration if saved else 0)
    if saved is None:
        return state
    if now is None or if_changed != "continue":
        check_frozen(folder, config, saved, state.frozen)
    path = checkpoints.saved_path(folder, saved.iteration)
    for name, part in state.trained_parts().items():
        weights = saved.weights_of(name)
        checkpoints.load_weights(part, weights, path)
        average = saved.averages.get(name, weights)
        checkpoints.check_weights(part, average, path)
        for key, tensor in state.averages.get(name, {}).items():
            # Copying keeps the memory order of the weights that the average follows.
            tensor.copy_(average[key])
    for name, optimizer_state in saved.optimizers.items():
        if name not in state.optimizers:
            raise BadInput(f"{path}: holds an optimizer '{name}', expected {', '.join(state.optimizers)}")
        checkpoints.load_optimizer(state.optimizers[name], optimizer_state, path)
    for name in state.optimizers.keys() - saved.optimizers.keys():
        logger.warning("%s: holds no moments of the optimizer of '%s', which begins afresh", path, name)
    state.iteration, state.grey_scale, state.grey_range = saved.iteration, saved.grey_scale, saved.grey_range
    state.images, state.domains = saved.images, saved.domains
    for name, pool in state.pools.items():
        pool.load_state_dict(saved.pools.get(name, {}), device)
    state.started_from = saved.provenance.get("start_from")
    state.validation = saved.provenance.get("validation")
    logger.info("%s: going on from iteration %d", folder, saved.iteration)
    return state


def recorded_grey_range(folder: Path, config: NetworkConfig) -> GreyRange | Statistics | None:
    """Return the measured range of grey values in the checkpoint that training goes on from; None without one.

    Of domain transfer, the statistics of both domains.
    """
    if config.transfer is not None:
        saved = checkpoints.load_newest(folder, config)
        domains = saved.domains if saved else None
        return {name: DomainStatistics.from_dict(stored) for name, stored in domains.items()} if domains else None
    if config.normalization.grey_range != "percentiles":
        return None
    saved = checkpoints.load_newest(folder, config)
    return saved.grey_range if saved else None


def trained_already(
    folder: Path, config: NetworkConfig, until: int, now: Record, if_changed: IfChanged
) -> Checkpoint | None:
    """Return the checkpoint of iteration `until`, or None if the network is not trained that far.

    Raises:
        BadInput: the network is trained further and has no checkpoint of `until`, or as `check_record`.
    """
    saved = checkpoints.iterations(folder)
    if not saved or until > saved[-1]:
        return None
    checkpoint = checkpoints.load(folder, config, until)
    check_record(folder, config, checkpoint, now, if_changed, goes_on=False)
    return checkpoint


def check_record(
    folder: Path,
    config: NetworkConfig,
    checkpoint: Checkpoint,
    now: Record | None,
    if_changed: IfChanged,
    *,
    goes_on: bool,
) -> None:
    """Compare what a checkpoint was trained with to what the run would train with; other code is only told.

    Args:
        folder: that of the network.
        config: the resolved configuration.
        checkpoint: to go on from, or to take.
        now: what the run trains with; None: not compared.
        if_changed: `refuse`, or `continue` with other settings and data, or `keep` the checkpoint as it is; not with
            other weights of its frozen network: nothing could predict with it.
        goes_on: whether iterations are left to train; else the checkpoint is taken.

    Raises:
        BadInput: settings or data differ, and `if_changed` does not allow for it.
    """
    path, earlier = checkpoints.saved_path(folder, checkpoint.iteration), checkpoint.last_record
    if now is None:
        return
    if earlier is None:
        logger.info("%s: does not tell what it was trained with; taken as it is", path)
        return
    told, is_kept = "; ".join(differences(earlier, now)), if_changed == "keep" and not has_other_frozen(earlier, now)
    if told and is_kept and not goes_on:
        logger.info("%s: kept, trained with other settings or data: %s", path, told)
    elif told and if_changed == "continue" and goes_on:
        logger.info("%s: going on with other settings or data: %s", path, told)
    elif told:
        choices = _choices(folder, config, checkpoint, earlier, now)
        reason = (
            _WHY_NOT[goes_on] if goes_on or if_changed == "continue" else "with other weights of the frozen network"
        )
        why = "" if if_changed == "refuse" else f"{if_changed} is not possible {reason}; "
        raise BadInput(f"{path}: was trained with other settings or data: {told}; {why}choose one: {choices}")
    elif earlier["code"] and now["code"] and earlier["code"] != now["code"]:
        logger.info("%s: was trained by code %s, now %s", path, earlier["code"], now["code"])


def _choices(folder: Path, config: NetworkConfig, checkpoint: Checkpoint, earlier: Record, now: Record) -> str:
    """Return what a user can do about a checkpoint that was trained with something else."""
    if not has_other_frozen(earlier, now):
        return _CHOICES
    former = former_iteration(folder, config, checkpoint)
    key = config.frozen_key[0] if config.frozen_key else ""
    return _CHOICES_FROZEN + (f", {key}.iteration={former} reads the former weights" if former else "")


def save(
    folder: Path, config: NetworkConfig, state: TrainingState, volumes: Sequence[str], interim: bool = False,
    only_best: bool = False,
) -> None:  # fmt: skip
    """Write a checkpoint of `state` with provenance.

    Args:
        folder: that of the network.
        config: the resolved configuration.
        state: what to save.
        volumes: the paths of the training volumes.
        interim: whether only going on needs it, see `checkpoint.save`.
        only_best: whether it is kept until validation finds a better one.

    Raises:
        RunFailed: a weight is NaN or infinite.
    """
    inputs = {str(index): Path(name) for index, name in enumerate(volumes)}
    seed = config.training.sampling.seed
    about = provenance(config.model_dump(mode="json"), inputs, seed, fingerprint=fingerprint)
    if state.frozen:
        about |= {"frozen": state.frozen.record}
    if state.made_from:
        about |= {"made_from": dict(state.made_from)}
    if any(record["data"] != state.trained_with[-1]["data"] for record in state.trained_with):
        about["continued_with_other_data"] = True
    if state.validation:
        about |= {"validation": state.validation}
    if only_best:
        about |= {ONLY_BEST: True}
    if state.started_from:
        about |= {"start_from": state.started_from}
    weights = {name: _contiguous(part) for name, part in state.trained_parts().items()}
    for network in weights.values():
        broken = [key for key, tensor in network.items() if not bool(torch.isfinite(tensor).all())]
        if broken:
            raise RunFailed(
                f"{folder}: {broken[0]} is no number after iteration {state.iteration}; nothing was saved since"
            )
    content = Checkpoint(
        iteration=state.iteration,
        architecture=config.architecture(),
        networks=weights,
        averages=state.averages,
        optimizers={name: saved_state(optimizer) for name, optimizer in state.optimizers.items()},
        frozen_digest=state.frozen.digest if state.frozen else None,
        normalization=record_normalization(
            config.normalization, state.grey_scale, state.grey_range, state.images, state.domains
        ),
        pools={name: pool.state_dict() for name, pool in state.pools.items() if len(pool)},
        trained_with=state.trained_with,
        provenance=about,
    )
    path = checkpoints.save(folder, content, interim)
    logger.debug("saved %s", path)


def _contiguous(part: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.contiguous() for key, tensor in part.state_dict().items()}
