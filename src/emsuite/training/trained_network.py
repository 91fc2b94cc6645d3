"""Trained networks, ready to predict: weights of a checkpoint, behind a frozen network where they were trained so.

And weights of a checkpoint that another network begins with, `training.start_from`.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emsuite.common.documents import shortened
from emsuite.common.errors import BadInput
from emsuite.common.state.origins import identity_of
from emsuite.config.network import (
    NetworkConfig,
    build_autocontext,
    build_network,
    config_folder,
    frozen_network_folder,
    load_network,
)
from emsuite.models.network import AnyNetwork, Network, trained_part
from emsuite.models.transfer.settings import Prior
from emsuite.training import checkpoint as checkpoints
from emsuite.training.step import FrozenWeights


def load_trained(
    folder: Path, config: NetworkConfig, iteration: int | None = None
) -> tuple[AnyNetwork, checkpoints.Checkpoint]:
    """Return the network of a folder, ready to predict, with its frozen network if it has one, and its checkpoint."""
    checkpoint = checkpoints.load(folder, config, iteration)
    network, frozen = build_with_frozen(folder, config)
    check_frozen(folder, config, checkpoint, frozen)
    checkpoints.load_weights(
        trained_part(network), checkpoint.best_weights, checkpoints.checkpoint_path(folder, checkpoint.iteration)
    )
    return network, checkpoint


def build_with_frozen(folder: Path, config: NetworkConfig) -> tuple[AnyNetwork, FrozenWeights | None]:
    """Return a network with fresh weights behind its frozen network, loaded, if it has one; and which it is."""
    frozen = load_frozen(folder, config)
    if frozen is None:
        return build_network(config), None
    frozen_config, checkpoint, path = frozen
    network = build_autocontext(config, frozen_config)
    checkpoints.load_weights(network.frozen, checkpoint.best_weights, path)
    return network, weights_told(checkpoint)


def frozen_weights(folder: Path, config: NetworkConfig) -> FrozenWeights | None:
    """Return which weights of a frozen network `folder` reads LSDs from; None if it reads raw alone."""
    frozen = load_frozen(folder, config)
    return None if frozen is None else weights_told(frozen[1])


def weights_told(checkpoint: checkpoints.Checkpoint) -> FrozenWeights:
    """Return what is told of the frozen weights of a checkpoint."""
    return FrozenWeights(checkpoint.iteration, checkpoints.digest(checkpoint.best_weights))


def load_frozen(folder: Path, config: NetworkConfig) -> tuple[NetworkConfig, checkpoints.Checkpoint, Path] | None:
    """Return configuration, checkpoint and its path of the frozen network that `folder` reads LSDs from, or None.

    The checkpoint is that of `autocontext.iteration`, which `load_network` resolves, never merely the newest.
    """
    frozen_folder = frozen_network_folder(folder, config)
    if frozen_folder is None or config.autocontext is None:
        return None
    frozen_config = load_network(frozen_folder)
    if frozen_config.context_head is None or frozen_config.autocontext is not None:
        raise BadInput(f"{frozen_folder}: does not predict LSDs from raw, which '{config.network}' reads")
    if frozen_config.normalization != config.normalization:
        raise BadInput(f"{frozen_folder}: its normalization differs from that of '{config.network}', which reads both")
    wanted, saved = config.autocontext.iteration, checkpoints.iterations(frozen_folder)
    if wanted is not None and saved and wanted not in saved:
        raise BadInput(
            f"{frozen_folder}: no checkpoint of iteration {wanted}, which autocontext.iteration of '{config.network}' "
            f"names; it has {', '.join(map(str, saved))}: train it to {wanted}, or change autocontext.iteration"
        )
    checkpoint = checkpoints.load(frozen_folder, frozen_config, wanted)
    return frozen_config, checkpoint, checkpoints.checkpoint_path(frozen_folder, checkpoint.iteration)


def check_frozen(
    folder: Path, config: NetworkConfig, checkpoint: checkpoints.Checkpoint, frozen: FrozenWeights | None
) -> None:
    """Refuse a checkpoint trained on other weights of the frozen network than `frozen`."""
    if checkpoint.frozen_digest == (frozen.digest if frozen else None):
        return
    key, settings = config.frozen_key or ("?", None)
    name = settings.network if settings else "?"
    now = f"iteration {frozen.iteration}, which it would read now" if frozen else "none"
    former = former_iteration(folder, config, checkpoint)
    remedy = f"train it anew in a run folder, {folder}/runs/NAME (in the workflow: --config run=NAME)"
    if former is not None:
        remedy = f"set {key}.iteration to {former}, which has them, or {remedy}"
    raise BadInput(f"{folder}: was trained on other weights of '{name}' than those of {now}: {remedy}")


def start_weights(folder: Path, config: NetworkConfig, network: Network) -> dict[str, Any] | None:
    """Load the weights of `training.start_from` into `network`, and return what a checkpoint tells of them.

    Returns:
        `checkpoint`, `iteration`, `digest` of the weights taken and their number; None if training begins with random
        weights.

    Raises:
        BadInput: there is no such checkpoint, or its weights do not fit, or a prefix is that of none.
    """
    if config.training.start_from is None:
        return None
    path, checkpoint, weights = _given(folder, config)
    own, prefixes = network.state_dict(), config.training.start_from.prefixes
    others = {name: tensor for name, tensor in own.items() if not _begins(name, prefixes)}
    checkpoints.load_weights(network, others | weights, path)
    return {"checkpoint": path.name, "iteration": checkpoint.iteration, "digest": checkpoints.digest(weights),
            "weights": len(weights)}  # fmt: skip


def given_today(folder: Path, config: NetworkConfig) -> dict[str, Any] | None:
    """Return `iteration` and `digest` of the weights that `training.start_from` names today, for the record.

    None if it names none, or their file is gone or damaged: a run that has begun with them needs it no more.
    """
    if config.training.start_from is None:
        return None
    with contextlib.suppress(BadInput):
        _, checkpoint, weights = _given(folder, config)
        return {"iteration": checkpoint.iteration, "digest": checkpoints.digest(weights)}
    return None


def runs_of_weights(folder: Path, config: NetworkConfig) -> dict[str, str]:
    """Return the identities of the checkpoints of `weights_read`, as far as they are there, for the manifest."""
    runs = {name: identity_of(path) for name, path in _weights(folder, config).items()}
    return {name: run for name, run in runs.items() if run is not None}


def start_path(folder: Path, config: NetworkConfig) -> Path | None:
    """Return the checkpoint that `training.start_from` names, of a folder the newest one; None if it names none.

    It need not exist.
    """
    if config.training.start_from is None:
        return None
    path = (config_folder(folder) / config.training.start_from.checkpoint).resolve()
    saved = checkpoints.iterations(path) if path.is_dir() else []
    return checkpoints.checkpoint_path(path, saved[-1]) if saved else path


def _given(folder: Path, config: NetworkConfig) -> tuple[Path, checkpoints.Checkpoint, dict[str, Tensor]]:
    """Return the path of the checkpoint to begin with, the checkpoint, and its weights that are taken."""
    path, given = start_path(folder, config), config.training.start_from
    assert path is not None
    assert given is not None
    if path.is_dir():
        raise BadInput(f"{path}: has no checkpoint, expected one for training.start_from")
    if not path.is_file():
        raise BadInput(f"{path}: no such file; expected a checkpoint for training.start_from")
    checkpoint = checkpoints.read(path)
    weights = {name: tensor for name, tensor in checkpoint.best_weights.items() if _begins(name, given.prefixes)}
    for prefix in given.prefixes:
        if not any(name.startswith(prefix) for name in weights):
            raise BadInput(f"{path}: has no weights '{shortened(prefix)}...', which training.start_from.prefixes names")
    return path, checkpoint, weights


def freeze(config: NetworkConfig, network: Network) -> None:
    """Take the weights of `training.start_from.frozen` out of training; norms among them keep their statistics.

    Raises:
        BadInput: a prefix is that of no weights, or no weights are left to train.
    """
    given = config.training.start_from
    for prefix in given.frozen if given else ():
        frozen = [weight for name, weight in network.named_parameters() if name.startswith(prefix)]
        if not frozen:
            raise BadInput(f"training.start_from.frozen: no weights of {config.network} begin with '{prefix}'")
        for weight in frozen:
            weight.requires_grad_(False)
    for name, module in network.named_modules():
        if given and isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and given.frozen:
            module.train(not _begins(name, given.frozen))
    if not any(weight.requires_grad for weight in network.parameters()):
        raise BadInput("training.start_from.frozen: no weights are left to train, expected fewer prefixes")


def _begins(name: str, prefixes: Sequence[str]) -> bool:
    return not prefixes or name.startswith(tuple(prefixes))


def prior_folder(folder: Path, prior: Prior) -> Path:
    """Return the folder of the trained network that `folder` names as a prior."""
    return (config_folder(folder) / prior.network).resolve()


def weights_read(folder: Path, config: NetworkConfig) -> tuple[Path, ...]:
    """Return the checkpoints that training begins with, and reads LSDs or the features of a prior from.

    They need not exist.
    """
    return tuple(_weights(folder, config).values())


def _weights(folder: Path, config: NetworkConfig) -> dict[str, Path]:
    begun = start_path(folder, config)
    paths = {} if begun is None else {"start_from": begun}
    if config.autocontext is not None and config.autocontext.iteration is not None:
        where = config_folder(folder).parent / config.autocontext.network
        paths["frozen"] = checkpoints.checkpoint_path(where, config.autocontext.iteration)
    if config.transfer is not None and (prior := config.transfer.prior) is not None:
        where = prior_folder(folder, prior)
        with contextlib.suppress(BadInput):  # of a network that is gone
            iteration = prior.iteration or load_network(where).training.iterations
            paths["frozen"] = checkpoints.checkpoint_path(where, iteration)
    return paths


def former_iteration(folder: Path, config: NetworkConfig, checkpoint: checkpoints.Checkpoint) -> int | None:
    """Return the iteration of the frozen network that a checkpoint was trained on, if its weights still lie there."""
    prior = config.transfer.prior if config.transfer else None
    frozen_folder = prior_folder(folder, prior) if prior else frozen_network_folder(folder, config)
    if frozen_folder is None or checkpoint.frozen_digest is None:
        return None
    told = (checkpoint.last_record or checkpoint.provenance).get("frozen")
    recorded = told.get("iteration") if isinstance(told, dict) else None
    saved = checkpoints.iterations(frozen_folder)
    for iteration in [recorded] if recorded in saved else reversed(saved):
        with contextlib.suppress(BadInput):
            weights = checkpoints.read(checkpoints.checkpoint_path(frozen_folder, iteration)).best_weights
            if checkpoints.digest(weights) == checkpoint.frozen_digest:
                return iteration
    return None
