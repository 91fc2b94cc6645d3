"""The networks of a run of domain transfer, with the trained network that a discriminator reads beside images."""

from pathlib import Path

from torch import nn

from emsuite.common.errors import BadInput
from emsuite.common.state.origins import made_from
from emsuite.config.network import NetworkConfig, config_folder, load_network
from emsuite.config.transfer_networks import build_networks
from emsuite.models.network import Network
from emsuite.models.transfer.settings import Prior
from emsuite.training import checkpoint as checkpoints
from emsuite.training.step import FrozenWeights


def build(folder: Path, config: NetworkConfig) -> tuple[dict[str, nn.Module], FrozenWeights | None]:
    """Return all networks with fresh weights, and which weights the prior of `d_b` has, if it has one.

    Raises:
        BadInput: the network of the prior is missing, or its features do not fit.
    """
    transfer = config.generators
    prior, frozen = load_prior(folder, getattr(transfer.discriminator, "prior", None))
    return build_networks(transfer, config.heads, prior), frozen


def load_prior(folder: Path, prior: Prior | None) -> tuple[Network | None, FrozenWeights | None]:
    """Return the trained network of a prior and which weights it has; None, None without a prior.

    Args:
        folder: of the network that has the prior.
        prior: names the folder of the trained one, as seen from there.
    """
    if prior is None:
        return None, None
    where = (config_folder(folder) / prior.network).resolve()
    config = load_network(where)
    if config.autocontext is not None or config.in_channels != 1:
        raise BadInput(f"{where}: reads other than raw alone, expected a network of raw for the discriminator's prior")
    checkpoint = checkpoints.load(where, config, prior.iteration or config.training.iterations)
    path = checkpoints.checkpoint_path(where, checkpoint.iteration)
    network = Network(config.supervised_unet, 1, {name: head.channels for name, head in config.heads.items()})
    checkpoints.load_weights(network, checkpoint.best_weights, path)
    digest = checkpoints.digest(checkpoint.best_weights)
    return network, FrozenWeights(checkpoint.iteration, digest, made_from({"prior": path}))
