"""Trained networks, ready to predict: weights of a checkpoint, behind a frozen network where they were trained so."""

from pathlib import Path

from emsuite.common.errors import BadInput
from emsuite.config.network import NetworkConfig, build_autocontext, build_network, frozen_network_folder, load_network
from emsuite.models.network import AnyNetwork, trained_part
from emsuite.training import checkpoint as checkpoints


def load_trained(
    folder: Path, config: NetworkConfig, iteration: int | None = None
) -> tuple[AnyNetwork, checkpoints.Checkpoint]:
    """Return the network of a folder, ready to predict, with its frozen network if it has one, and its checkpoint."""
    checkpoint = checkpoints.load(folder, config, iteration)
    network, frozen_digest = build_with_frozen(folder, config)
    check_frozen(folder, config, checkpoint, frozen_digest)
    checkpoints.load_weights(
        trained_part(network), checkpoint.best_weights, checkpoints.checkpoint_path(folder, checkpoint.iteration)
    )
    return network, checkpoint


def build_with_frozen(folder: Path, config: NetworkConfig) -> tuple[AnyNetwork, str | None]:
    """Return a network with fresh weights behind its frozen network, loaded, if it has one; and the latter's digest."""
    frozen = load_frozen(folder, config)
    if frozen is None:
        return build_network(config), None
    frozen_config, checkpoint = frozen
    network = build_autocontext(config, frozen_config)
    path = checkpoints.checkpoint_path(frozen_network_folder(folder, config) or folder, checkpoint.iteration)
    checkpoints.load_weights(network.frozen, checkpoint.best_weights, path)
    return network, checkpoints.digest(checkpoint.best_weights)


def load_frozen(folder: Path, config: NetworkConfig) -> tuple[NetworkConfig, checkpoints.Checkpoint] | None:
    """Return configuration and checkpoint of the frozen network that `folder` reads LSDs from; None without one."""
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
    return frozen_config, checkpoints.load(frozen_folder, frozen_config, wanted)


def check_frozen(
    folder: Path, config: NetworkConfig, checkpoint: checkpoints.Checkpoint, frozen_digest: str | None
) -> None:
    """Refuse a checkpoint trained on other weights of the frozen network than those of `frozen_digest`."""
    if checkpoint.frozen_digest != frozen_digest:
        name = config.autocontext.network if config.autocontext else "?"
        raise BadInput(f"{folder}: was trained on other weights of '{name}' than the ones that lie beside it now")
